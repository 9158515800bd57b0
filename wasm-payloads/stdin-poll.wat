;; poll_oneoff on stdin and on a 5 s timer; prints "stdin" or "clock" for each event, in the order they came.
;; Exit status: 0, or the errno of a call or of an event.
(module
  (import "wasi_snapshot_preview1" "poll_oneoff"
    (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  ;; 0: iovec, 8: bytes written or number of events, 64: two subscriptions, 192: two events.
  (memory (export "memory") 1)
  (data (i32.const 16) "stdin\nclock\n")

  (func $check (param $errno i32)
    (if (local.get $errno) (then (call $proc_exit (local.get $errno)))))

  (func (export "_start") (local $event i32) (local $end i32)
    ;; Each user data is the address of the word to print.
    (i64.store (i32.const 64) (i64.const 16))
    (i32.store8 (i32.const 72) (i32.const 1))        ;; fd_read
    (i32.store (i32.const 80) (i32.const 0))         ;; stdin
    (i64.store (i32.const 112) (i64.const 22))
    (i32.store8 (i32.const 120) (i32.const 0))       ;; clock
    (i32.store (i32.const 128) (i32.const 1))        ;; monotonic
    (i64.store (i32.const 136) (i64.const 5000000000))
    (call $check (call $poll_oneoff (i32.const 64) (i32.const 192) (i32.const 2) (i32.const 8)))
    (local.set $event (i32.const 192))
    (local.set $end (i32.add (i32.const 192) (i32.shl (i32.load (i32.const 8)) (i32.const 5))))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $event) (local.get $end)))
        (call $check (i32.load16_u offset=8 (local.get $event)))
        (i32.store (i32.const 0) (i32.load (local.get $event)))
        (i32.store (i32.const 4) (i32.const 6))
        (call $check (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
        (local.set $event (i32.add (local.get $event) (i32.const 32)))
        (br $next)))))
