;; What WebAssembly gained since 1.0, one check each. Exit status: 0, or the first check that failed:
;; 1 multi-value, 2 multi-memory, 3 bulk memory, 4 reference types, 5 tail calls, 6 extended constant expressions,
;; 7 saturating conversions, 8 sign extension, 9 memory64.
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  (memory $second 1)
  (memory $wide i64 1 2)
  (global $extended i32 (i32.sub (i32.add (i32.const 50) (i32.mul (i32.const 2) (i32.const 30))) (i32.const 10)))
  (table $refs 2 externref)
  (table $funcs 4 funcref)
  (elem $passive func $seven $three)
  (data $passive "\01\02\03\04\05\06\07\08")
  (data (memory $second) (i32.const 0) "\2a")
  (type $number (func (result i32)))

  (func $seven (result i32) (i32.const 7))
  (func $three (result i32) (i32.const 3))

  (func $expect (param $check i32) (param $ok i32)
    (if (i32.eqz (local.get $ok)) (then (call $proc_exit (local.get $check)))))

  ;; Parameters of a block, and several results of a block and of a function.
  (func $divide (param $a i32) (param $b i32) (result i32 i32)
    (i32.div_u (local.get $a) (local.get $b))
    (i32.rem_u (local.get $a) (local.get $b)))
  (func $multi_value (result i32) (local $rest i32) (local $quotient i32)
    (call $divide (i32.const 47) (i32.const 5))
    (block (param i32 i32) (result i32 i32)
      (local.set $rest)
      (local.set $quotient)
      (local.get $rest)
      (local.get $quotient))
    (i32.sub) ;; 2 - 9
    (i32.eq (i32.const -7)))

  (func $multi_memory (result i32)
    (memory.copy $second 0 (i32.const 100) (i32.const 0) (i32.const 1))
    (memory.copy 0 $second (i32.const 200) (i32.const 0) (i32.const 1))
    (i32.store8 $second (i32.const 300) (i32.const 9))
    (i32.and
      (i32.and
        (i32.eq (i32.load8_u (i32.const 200)) (i32.const 42))
        (i32.eqz (i32.load8_u (i32.const 300))))
      (i32.and
        (i32.eq (memory.grow $second (i32.const 1)) (i32.const 1))
        (i32.and (i32.eq (memory.size $second) (i32.const 2)) (i32.eq (memory.size) (i32.const 1))))))

  (func $bulk_memory (result i32)
    (memory.init $passive (i32.const 1000) (i32.const 2) (i32.const 4))
    (data.drop $passive)
    (memory.fill (i32.const 1004) (i32.const 0xaa) (i32.const 4))
    (memory.copy (i32.const 1001) (i32.const 1000) (i32.const 6)) ;; overlapping
    (i64.eq (i64.load (i32.const 1000)) (i64.const 0xaaaaaa0605040303)))

  (func $reference_types (result i32) (local $null externref)
    (table.init $funcs $passive (i32.const 0) (i32.const 0) (i32.const 2))
    (table.copy $funcs $funcs (i32.const 2) (i32.const 0) (i32.const 2))
    (table.set $funcs (i32.const 0) (ref.func $three))
    (table.fill $refs (i32.const 0) (ref.null extern) (i32.const 2))
    (i32.and
      (i32.and
        (ref.is_null (local.get $null))
        (ref.is_null (table.get $refs (i32.const 1))))
      (i32.and
        (i32.eq (table.grow $refs (ref.null extern) (i32.const 3)) (i32.const 2))
        (i32.eq
          (i32.sub
            (call_indirect $funcs (type $number) (i32.const 2))
            (call_indirect $funcs (type $number) (i32.const 0)))
          (select (result i32) (i32.const 4) (i32.const 5) (table.size $refs))))))

  ;; A million calls deep, in the space of one.
  (func $even (param $n i32) (result i32)
    (if (i32.eqz (local.get $n)) (then (return (i32.const 1))))
    (return_call $odd (i32.sub (local.get $n) (i32.const 1))))
  (func $odd (param $n i32) (result i32)
    (if (i32.eqz (local.get $n)) (then (return (i32.const 0))))
    (return_call $even (i32.sub (local.get $n) (i32.const 1))))
  (func $tail_indirect (param $at i32) (result i32)
    (return_call_indirect $funcs (type $number) (local.get $at)))
  (func $tail_calls (result i32)
    (i32.and
      (call $even (i32.const 1000000))
      (i32.eq (call $tail_indirect (i32.const 2)) (i32.const 7))))

  (func $saturating (result i32)
    (i32.and
      (i32.and
        (i32.eq (i32.trunc_sat_f64_s (f64.const 1e300)) (i32.const 0x7fffffff))
        (i32.eqz (i32.trunc_sat_f32_u (f32.const -5))))
      (i32.and
        (i64.eqz (i64.trunc_sat_f64_s (f64.const nan)))
        (i64.eq (i64.trunc_sat_f32_u (f32.const inf)) (i64.const -1)))))

  (func $sign_extension (result i32)
    (i32.and
      (i32.and
        (i32.eq (i32.extend8_s (i32.const 0x180)) (i32.const -128))
        (i32.eq (i32.extend16_s (i32.const 0x1ffff)) (i32.const -1)))
      (i64.eq (i64.extend32_s (i64.const 0x180000000)) (i64.const -0x80000000))))

  (func $memory64 (result i32)
    (i64.store $wide (i64.const 65528) (i64.const 0x1122334455667788))
    (memory.fill $wide (i64.const 0) (i32.const 1) (i64.const 8))
    (i32.and
      (i64.eq
        (i64.add (i64.load $wide (i64.const 65528)) (i64.load $wide (i64.const 0)))
        (i64.const 0x1223344556677889))
      (i32.and
        (i64.eq (memory.grow $wide (i64.const 1)) (i64.const 1))
        (i32.and
          (i64.eq (memory.grow $wide (i64.const 1)) (i64.const -1))
          (i64.eq (memory.size $wide) (i64.const 2))))))

  (func (export "_start")
    (call $expect (i32.const 1) (call $multi_value))
    (call $expect (i32.const 2) (call $multi_memory))
    (call $expect (i32.const 3) (call $bulk_memory))
    (call $expect (i32.const 4) (call $reference_types))
    (call $expect (i32.const 5) (call $tail_calls))
    (call $expect (i32.const 6) (i32.eq (global.get $extended) (i32.const 100)))
    (call $expect (i32.const 7) (call $saturating))
    (call $expect (i32.const 8) (call $sign_extension))
    (call $expect (i32.const 9) (call $memory64))))
