;; Trap: undefined element (indirect call behind the end of the table).
(module
  (memory (export "memory") 1)
  (table funcref (elem $nop))
  (type $nothing (func))
  (func $nop)
  (func (export "_start")
    (call_indirect (type $nothing) (i32.const 1))))
