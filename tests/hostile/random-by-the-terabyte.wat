;; Has the grant `random`, and asks for the largest number of random bytes in one call.
;;! grants = "random = true"
;;! world = "import wasi:random/random@0.2.6;"
;;! packages = "package wasi:random@0.2.6 { interface random { get-random-bytes: func(len: u64) -> list<u8>; } }"
;;! fails = "trap bad_call"
;;! says = "exceeds limit 65536"
(module
  (import "wasi:random/random@0.2.6" "get-random-bytes" (func $random (param i64 i32)))
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0x4000))
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (call $random (i64.const -1) (i32.const 0x3000))
    (i32.const 1024)))
