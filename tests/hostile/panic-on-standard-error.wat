;; Writes the lines that Rust's own panic hook writes, and traps.
;;! world = "import wasi:cli/stderr@0.2.6;"
;;! packages = '''
;;! package wasi:io@0.2.6 {
;;!   interface error { resource error; }
;;!   interface streams { use error.{error}; variant stream-error { last-operation-failed(error), closed }
;;!     resource output-stream { blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>; } } }
;;! package wasi:cli@0.2.6 { interface stderr { use wasi:io/streams@0.2.6.{output-stream}; get-stderr: func() -> output-stream; } }'''
;;! fails = "panic panic"
;;! says = "the task panicked at src/lib.rs:12: index out of bounds"
(module
  (import "wasi:cli/stderr@0.2.6" "get-stderr" (func $stderr (result i32)))
  (import "wasi:io/streams@0.2.6" "[method]output-stream.blocking-write-and-flush" (func $write (param i32 i32 i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 0x2000) "\0athread '<unnamed>' (1) panicked at src/lib.rs:12:5:\0aindex out of bounds\0a")
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (call $write (call $stderr) (i32.const 0x2000) (i32.const 72) (i32.const 0x3000))
    (unreachable)))
