;; Loops for ever without a host call: only a deadline, fuel or an interrupt from outside ends it.
(module
  (memory (export "memory") 1)
  (func (export "_start")
    (loop $for_ever (br $for_ever))))
