;; Writes 64 KiB pieces to stdout without end, until fd_write gives an errno, which becomes the exit status
;; (64, pipe, when the reader is gone).
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 2)
  (data (i32.const 0) "\00\00\01\00\00\00\01\00") ;; iovec: 65536 bytes at 65536
  (func (export "_start") (local $errno i32)
    (memory.fill (i32.const 65536) (i32.const 46) (i32.const 65536)) ;; "."
    (loop $next
      (local.set $errno (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
      (br_if $next (i32.eqz (local.get $errno))))
    (call $proc_exit (local.get $errno))))
