;; Trap: integer divide by zero. The divisor comes from memory, so that no compiler folds the division away.
(module
  (memory (export "memory") 1)
  (func (export "_start")
    (drop (i32.div_s (i32.const 1) (i32.load (i32.const 0))))))
