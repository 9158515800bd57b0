;; Asks a million times for a page that its own maximum denies; each must give -1 and leave the size alone. An engine
;; that spends native stack on each memory.grow ends here. Exit status: 0, 1 a grow gave something else, 2 size changed.
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1 1)
  (func (export "_start") (local $n i32)
    (loop $next
      (if (i32.ne (memory.grow (i32.const 1)) (i32.const -1))
        (then (call $proc_exit (i32.const 1))))
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $n) (i32.const 1000000))))
    (if (i32.ne (memory.size) (i32.const 1)) (then (call $proc_exit (i32.const 2))))))
