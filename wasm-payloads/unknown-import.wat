;; Two imports that no host has, one in an unknown namespace, one in WASI's: refused before _start runs.
(module
  (import "env" "no_such_function" (func $a (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "no_such_call" (func $b (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (drop (call $a (call $b)))))
