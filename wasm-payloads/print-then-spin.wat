;; What was printed before a kill must not be lost: one line, then a loop for ever.
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\10\00\00\00\10\00\00\00") ;; iovec: 16 bytes at 16
  (data (i32.const 16) "before the loop\n")
  (func (export "_start")
    (if (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))
      (then unreachable))
    (loop $for_ever (br $for_ever))))
