;; The smallest command: one fd_write, then a normal return from _start (exit status 0).
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\10\00\00\00\17\00\00\00") ;; iovec: 23 bytes at 16
  (data (i32.const 16) "Hello from a micro VM!\n")
  (func (export "_start")
    ;; An errno here would otherwise pass unnoticed.
    (if (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))
      (then unreachable))))
