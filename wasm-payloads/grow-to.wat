;; grow-to.wat PAGES grows its memory page by page to PAGES pages and writes into each. Exit status: 0, 1 when
;; memory.grow gave -1 before that, 2 without a decimal argument, 3 when a new page was not zero.
(module
  (import "wasi_snapshot_preview1" "args_sizes_get"
    (func $args_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  ;; 0: argc, 4: bytes of strings, 16: argv, 1024: the strings.
  (memory (export "memory") 1)

  (func $fail_if (param $condition i32) (param $status i32)
    (if (local.get $condition) (then (call $proc_exit (local.get $status)))))

  (func $pages_wanted (result i32) (local $at i32) (local $n i32) (local $digit i32)
    (call $fail_if (call $args_sizes_get (i32.const 0) (i32.const 4)) (i32.const 2))
    (call $fail_if (i32.ne (i32.load (i32.const 0)) (i32.const 2)) (i32.const 2))
    (call $fail_if (i32.gt_u (i32.load (i32.const 4)) (i32.const 32768)) (i32.const 2))
    (call $fail_if (call $args_get (i32.const 16) (i32.const 1024)) (i32.const 2))
    (local.set $at (i32.load (i32.const 20)))
    (loop $next
      (local.set $digit (i32.sub (i32.load8_u (local.get $at)) (i32.const 48)))
      (call $fail_if (i32.gt_u (local.get $digit) (i32.const 9)) (i32.const 2))
      (local.set $n (i32.add (i32.mul (local.get $n) (i32.const 10)) (local.get $digit)))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br_if $next (i32.load8_u (local.get $at))))
    (local.get $n))

  (func (export "_start") (local $wanted i32) (local $page i32)
    (local.set $wanted (call $pages_wanted))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (memory.size) (local.get $wanted)))
        (local.set $page (i32.shl (memory.size) (i32.const 16)))
        (call $fail_if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (i32.const 1))
        (call $fail_if (i32.load offset=0xfffc (local.get $page)) (i32.const 3))
        (i32.store offset=0xfffc (local.get $page) (i32.const 1))
        (br $next)))))
