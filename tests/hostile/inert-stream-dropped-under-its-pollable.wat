;; Drops a stream that it is still subscribed to.
;;! world = "import wasi:cli/stdout@0.2.6;"
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
;;! fails = "trap bad_handle"
(module
  (import "wasi:cli/stdout@0.2.6" "get-stdout" (func $stdout (result i32)))
  (import "wasi:io/streams@0.2.6" "[method]output-stream.subscribe" (func $subscribe (param i32) (result i32)))
  (import "wasi:io/streams@0.2.6" "[resource-drop]output-stream" (func $drop (param i32)))
  (memory (export "memory") 1)
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (local $out i32)
    (local.set $out (call $stdout))
    (drop (call $subscribe (local.get $out)))
    (call $drop (local.get $out))
    (i32.const 1024)))
