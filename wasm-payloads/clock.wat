;; Clocks that behave. Exit status: 0, or the first thing found wrong:
;; 1 clock_time_get gave an errno, 2 the monotonic clock went back, 3 the realtime clock is before 2025,
;; 4 clock_res_get gave an errno, 5 a resolution of zero, 6 a resolution above 1 ms.
(module
  (import "wasi_snapshot_preview1" "clock_time_get"
    (func $clock_time_get (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "clock_res_get"
    (func $clock_res_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)

  (func $fail_if (param $condition i32) (param $status i32)
    (if (local.get $condition) (then (call $proc_exit (local.get $status)))))

  (func $now (param $clock i32) (result i64)
    (call $fail_if (call $clock_time_get (local.get $clock) (i64.const 1) (i32.const 0)) (i32.const 1))
    (i64.load (i32.const 0)))

  (func $check_resolution (param $clock i32)
    (call $fail_if (call $clock_res_get (local.get $clock) (i32.const 0)) (i32.const 4))
    (call $fail_if (i64.eqz (i64.load (i32.const 0))) (i32.const 5))
    (call $fail_if (i64.gt_u (i64.load (i32.const 0)) (i64.const 1000000)) (i32.const 6)))

  (func (export "_start") (local $reads i32) (local $last i64) (local $now i64)
    (local.set $last (call $now (i32.const 1)))
    (loop $read
      (local.set $now (call $now (i32.const 1)))
      (call $fail_if (i64.lt_u (local.get $now) (local.get $last)) (i32.const 2))
      (local.set $last (local.get $now))
      (local.set $reads (i32.add (local.get $reads) (i32.const 1)))
      (br_if $read (i32.lt_u (local.get $reads) (i32.const 100000))))
    ;; 2025-01-01T00:00:00Z in nanoseconds.
    (call $fail_if
      (i64.lt_u (call $now (i32.const 0)) (i64.const 1735689600000000000))
      (i32.const 3))
    (call $check_resolution (i32.const 0))
    (call $check_resolution (i32.const 1))))
