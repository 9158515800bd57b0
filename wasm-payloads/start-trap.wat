;; The start function traps, so instantiation fails and _start must never run.
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  (func $start unreachable)
  (start $start)
  (func (export "_start") (call $proc_exit (i32.const 0))))
