;; Two reads of 32 random bytes. Exit status: 0, or 1 random_get gave an errno, 2 a read is all zero,
;; 3 both reads are equal.
(module
  (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)

  (func $fail_if (param $condition i32) (param $status i32)
    (if (local.get $condition) (then (call $proc_exit (local.get $status)))))

  ;; 1 when the 32 bytes at $a and at $b are alike.
  (func $same (param $a i32) (param $b i32) (result i32) (local $end i32)
    (local.set $end (i32.add (local.get $a) (i32.const 32)))
    (loop $next
      (if (i64.ne (i64.load (local.get $a)) (i64.load (local.get $b)))
        (then (return (i32.const 0))))
      (local.set $a (i32.add (local.get $a) (i32.const 8)))
      (local.set $b (i32.add (local.get $b) (i32.const 8)))
      (br_if $next (i32.lt_u (local.get $a) (local.get $end))))
    (i32.const 1))

  (func (export "_start")
    (call $fail_if (call $random_get (i32.const 0) (i32.const 32)) (i32.const 1))
    (call $fail_if (call $random_get (i32.const 32) (i32.const 32)) (i32.const 1))
    ;; Nothing was ever written at 64: zeros to compare with.
    (call $fail_if (call $same (i32.const 0) (i32.const 64)) (i32.const 2))
    (call $fail_if (call $same (i32.const 32) (i32.const 64)) (i32.const 2))
    (call $fail_if (call $same (i32.const 0) (i32.const 32)) (i32.const 3))))
