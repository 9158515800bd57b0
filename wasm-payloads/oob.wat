;; Trap: out of bounds memory access. The load begins inside the one page and ends a byte behind it.
(module
  (memory (export "memory") 1 1)
  (func (export "_start")
    (drop (i32.load (i32.const 65533)))))
