;; Copies stdin to stdout until the end of stdin. Exit status: an errno, if one came.
(module
  (import "wasi_snapshot_preview1" "fd_read"
    (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  ;; 0: iovec, 8: bytes read or written, 65536: the buffer.
  (memory (export "memory") 2)

  (func $check (param $errno i32)
    (if (local.get $errno) (then (call $proc_exit (local.get $errno)))))

  (func $iovec (param $from i32) (param $len i32)
    (i32.store (i32.const 0) (local.get $from))
    (i32.store (i32.const 4) (local.get $len)))

  (func (export "_start")
    (local $from i32) (local $len i32)
    (block $end
      (loop $next
        (call $iovec (i32.const 65536) (i32.const 65536))
        (call $check (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
        (local.set $len (i32.load (i32.const 8)))
        (br_if $end (i32.eqz (local.get $len)))
        (local.set $from (i32.const 65536))
        (loop $more
          (call $iovec (local.get $from) (local.get $len))
          (call $check (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
          (local.set $from (i32.add (local.get $from) (i32.load (i32.const 8))))
          (local.set $len (i32.sub (local.get $len) (i32.load (i32.const 8))))
          (br_if $more (local.get $len)))
        (br $next)))))
