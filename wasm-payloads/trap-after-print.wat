;; What was printed before a trap must not be lost.
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\10\00\00\00\18\00\00\00") ;; iovec: 24 bytes at 16
  (data (i32.const 16) "printed before the trap\n")
  (func (export "_start")
    ;; An errno ends in a normal return, so that it cannot pass for the expected trap.
    (if (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))
      (then return))
    unreachable))
