;; No command: functions to call by name (--invoke), one for each kind of signature.
(module
  (memory (export "memory") 1)
  (func (export "add") (param i32 i32) (result i32)
    (i32.add (local.get 0) (local.get 1)))
  (func (export "mulf") (param f64 f64) (result f64)
    (f64.mul (local.get 0) (local.get 1)))
  ;; Traps for a zero divisor and for i32::MIN / -1.
  (func (export "div") (param i32 i32) (result i32)
    (i32.div_s (local.get 0) (local.get 1)))
  (func (export "swap") (param i64 i64) (result i64 i64)
    (local.get 1) (local.get 0))
  (func (export "nop")))
