;; Trap: indirect call type mismatch.
(module
  (memory (export "memory") 1)
  (table funcref (elem $takes_i32))
  (type $nothing (func))
  (func $takes_i32 (param i32))
  (func (export "_start")
    (call_indirect (type $nothing) (i32.const 0))))
