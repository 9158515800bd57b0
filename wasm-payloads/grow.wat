;; Grows its memory page by page until memory.grow returns -1, checks that the last page is there, and prints how
;; many pages it has: the memory limit, as the module sees it.
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)

  (func $print (param $from i32) (param $len i32) (local $errno i32)
    (loop $more
      (i32.store (i32.const 0) (local.get $from))
      (i32.store (i32.const 4) (local.get $len))
      (local.set $errno (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
      (if (local.get $errno) (then (call $proc_exit (local.get $errno))))
      (local.set $from (i32.add (local.get $from) (i32.load (i32.const 8))))
      (local.set $len (i32.sub (local.get $len) (i32.load (i32.const 8))))
      (br_if $more (local.get $len))))

  ;; Writes $n and a newline so that they end at 64; returns where they begin.
  (func $decimal_line (param $n i32) (result i32) (local $at i32)
    (i32.store8 (i32.const 63) (i32.const 10))
    (local.set $at (i32.const 63))
    (loop $digit
      (local.set $at (i32.sub (local.get $at) (i32.const 1)))
      (i32.store8 (local.get $at)
        (i32.add (i32.const 48) (i32.rem_u (local.get $n) (i32.const 10))))
      (local.set $n (i32.div_u (local.get $n) (i32.const 10)))
      (br_if $digit (local.get $n)))
    (local.get $at))

  (func (export "_start") (local $at i32)
    (loop $next
      (br_if $next (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
    ;; Traps when a page was promised that is not there.
    (i32.store8
      (i32.sub (i32.shl (memory.size) (i32.const 16)) (i32.const 1))
      (i32.const 1))
    (local.set $at (call $decimal_line (memory.size)))
    (call $print (local.get $at) (i32.sub (i32.const 64) (local.get $at)))))
