;; poll_oneoff with one relative 20 ms timer on the monotonic clock. Exit status: 0, or 1 an errno from a call,
;; 2 not exactly one event, 3 another user data, 4 an errno in the event, 5 not a clock event, 6 woke too early.
(module
  (import "wasi_snapshot_preview1" "poll_oneoff"
    (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "clock_time_get"
    (func $clock_time_get (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  ;; 0: subscription (48 bytes), 64: event (32 bytes), 96: number of events, 104: time.
  (memory (export "memory") 1)

  (func $fail_if (param $condition i32) (param $status i32)
    (if (local.get $condition) (then (call $proc_exit (local.get $status)))))

  (func $now (result i64)
    (call $fail_if (call $clock_time_get (i32.const 1) (i64.const 1) (i32.const 104)) (i32.const 1))
    (i64.load (i32.const 104)))

  (func (export "_start") (local $before i64)
    (i64.store (i32.const 0) (i64.const 0x6d6f7465))  ;; user data
    (i32.store8 (i32.const 8) (i32.const 0))          ;; a clock subscription
    (i32.store (i32.const 16) (i32.const 1))          ;; monotonic
    (i64.store (i32.const 24) (i64.const 20000000))   ;; 20 ms
    (i64.store (i32.const 32) (i64.const 0))          ;; precision
    (i32.store16 (i32.const 40) (i32.const 0))        ;; relative
    ;; Junk here must be overwritten by the host.
    (memory.fill (i32.const 64) (i32.const 0xff) (i32.const 36))
    (local.set $before (call $now))
    (call $fail_if
      (call $poll_oneoff (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 96))
      (i32.const 1))
    (call $fail_if
      (i64.lt_u (i64.sub (call $now) (local.get $before)) (i64.const 20000000))
      (i32.const 6))
    (call $fail_if (i32.ne (i32.load (i32.const 96)) (i32.const 1)) (i32.const 2))
    (call $fail_if (i64.ne (i64.load (i32.const 64)) (i64.const 0x6d6f7465)) (i32.const 3))
    (call $fail_if (i32.load16_u (i32.const 72)) (i32.const 4))
    (call $fail_if (i32.load8_u (i32.const 74)) (i32.const 5))))
