;; Prints each argument on its own line, in the order the host gives them, argv[0] included.
;; The buffers are sized by what the host announces, so long lists work too. Exit status: an errno, if one came.
(module
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  ;; 0: iovec, 8: bytes written, 16: count, 20: bytes of strings, 32: pointers, then the strings.
  (memory (export "memory") 1)

  (func $check (param $errno i32)
    (if (local.get $errno) (then (call $proc_exit (local.get $errno)))))

  ;; A pipe may take less than it was offered.
  (func $print (param $from i32) (param $len i32)
    (loop $more
      (i32.store (i32.const 0) (local.get $from))
      (i32.store (i32.const 4) (local.get $len))
      (call $check (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
      (local.set $from (i32.add (local.get $from) (i32.load (i32.const 8))))
      (local.set $len (i32.sub (local.get $len) (i32.load (i32.const 8))))
      (br_if $more (local.get $len))))

  (func (export "_start")
    (local $pointer i32) (local $pointers_end i32) (local $from i32) (local $to i32)
    (call $check (call $sizes_get (i32.const 16) (i32.const 20)))
    (local.set $pointers_end
      (i32.add (i32.const 32) (i32.shl (i32.load (i32.const 16)) (i32.const 2))))
    (if (i32.eq (i32.const -1)
          (memory.grow
            (i32.shr_u
              (i32.add (local.get $pointers_end) (i32.load (i32.const 20)))
              (i32.const 16))))
      (then unreachable))
    (call $check (call $get (i32.const 32) (local.get $pointers_end)))
    (local.set $pointer (i32.const 32))
    (block $done
      (loop $next
        (br_if $done (i32.eq (local.get $pointer) (local.get $pointers_end)))
        (local.set $from (i32.load (local.get $pointer)))
        (local.set $to (local.get $from))
        (block $end
          (loop $scan
            (br_if $end (i32.eqz (i32.load8_u (local.get $to))))
            (local.set $to (i32.add (local.get $to) (i32.const 1)))
            (br $scan)))
        ;; The string's NUL becomes its newline.
        (i32.store8 (local.get $to) (i32.const 10))
        (call $print (local.get $from)
          (i32.add (i32.sub (local.get $to) (local.get $from)) (i32.const 1)))
        (local.set $pointer (i32.add (local.get $pointer) (i32.const 4)))
        (br $next)))))
