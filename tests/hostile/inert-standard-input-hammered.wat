;; Reads as much as possible from its empty standard input, and splices it into its output, a thousand times.
;;! world = "import wasi:cli/stdin@0.2.6; import wasi:cli/stdout@0.2.6;"
;;! packages = '''
;;! package wasi:io@0.2.6 {
;;!   interface error { resource error; }
;;!   interface poll { resource pollable { block: func(); } poll: func(in: list<borrow<pollable>>) -> list<u32>; }
;;!   interface streams { use error.{error}; use poll.{pollable}; variant stream-error { last-operation-failed(error), closed }
;;!     resource input-stream { read: func(len: u64) -> result<list<u8>, stream-error>;
;;!       blocking-read: func(len: u64) -> result<list<u8>, stream-error>; subscribe: func() -> pollable; }
;;!     resource output-stream { write: func(contents: list<u8>) -> result<_, stream-error>;
;;!       write-zeroes: func(len: u64) -> result<_, stream-error>; subscribe: func() -> pollable;
;;!       blocking-splice: func(src: borrow<input-stream>, len: u64) -> result<u64, stream-error>; } } }
;;! package wasi:cli@0.2.6 {
;;!   interface stdin { use wasi:io/streams@0.2.6.{input-stream}; get-stdin: func() -> input-stream; }
;;!   interface stdout { use wasi:io/streams@0.2.6.{output-stream}; get-stdout: func() -> output-stream; }
;;!   interface stderr { use wasi:io/streams@0.2.6.{output-stream}; get-stderr: func() -> output-stream; } }'''
;;! returns = '{"n": 3000}'
(module
  (import "wasi:cli/stdin@0.2.6" "get-stdin" (func $stdin (result i32)))
  (import "wasi:cli/stdout@0.2.6" "get-stdout" (func $stdout (result i32)))
  (import "wasi:io/streams@0.2.6" "[method]input-stream.read" (func $read (param i32 i64 i32)))
  (import "wasi:io/streams@0.2.6" "[method]input-stream.blocking-read" (func $wait (param i32 i64 i32)))
  (import "wasi:io/streams@0.2.6" "[method]output-stream.blocking-splice" (func $splice (param i32 i32 i64 i32)))
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0x4000))
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (local $in i32) (local $out i32) (local $i i32) (local $closed i32)
    (local.set $in (call $stdin))
    (local.set $out (call $stdout))
    (loop $again
      (call $read (local.get $in) (i64.const -1) (i32.const 0x3000))
      (call $wait (local.get $in) (i64.const -1) (i32.const 0x3010))
      (call $splice (local.get $out) (local.get $in) (i64.const -1) (i32.const 0x3020))
      (local.set $closed
        (i32.add (local.get $closed)
          (i32.add (i32.load8_u (i32.const 0x3000)) (i32.add (i32.load8_u (i32.const 0x3010)) (i32.load8_u (i32.const 0x3020))))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $again (i32.lt_u (local.get $i) (i32.const 1000))))
    (i32.store (i32.const 1032) (local.get $closed))
    (i32.const 1024)))
