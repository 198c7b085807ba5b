;; Polls one subscription a million times in one call: each of these loans to the host counts.
;;! world = "import wasi:cli/stdout@0.2.6; import wasi:io/poll@0.2.6;"
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
;;! fails = "limit too_many_handles"
(module
  (import "wasi:cli/stdout@0.2.6" "get-stdout" (func $stdout (result i32)))
  (import "wasi:io/streams@0.2.6" "[method]output-stream.subscribe" (func $subscribe (param i32) (result i32)))
  (import "wasi:io/poll@0.2.6" "poll" (func $poll (param i32 i32 i32)))
  (memory (export "memory") 100)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0x4000))
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (local $one i32) (local $i i32)
    (local.set $one (call $subscribe (call $stdout)))
    (loop $again
      (i32.store offset=0x10000 (i32.mul (local.get $i) (i32.const 4)) (local.get $one))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $again (i32.lt_u (local.get $i) (i32.const 1000000))))
    (call $poll (i32.const 0x10000) (i32.const 1000000) (i32.const 0x3000))
    (i32.const 1024)))
