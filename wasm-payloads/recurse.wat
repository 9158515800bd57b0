;; Calls itself without end; the sum behind the call keeps it from being a tail call. Trap: call stack exhausted.
(module
  (memory (export "memory") 1)
  (func $deeper (param $depth i64) (result i64)
    (i64.add (call $deeper (i64.add (local.get $depth) (i64.const 1))) (local.get $depth)))
  (func (export "_start")
    (drop (call $deeper (i64.const 0)))))
