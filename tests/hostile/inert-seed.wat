;; Asks for a random seed twice: the seed is the same each time, in every attempt and on every worker.
;;! world = "import wasi:random/insecure-seed@0.2.6;"
;;! packages = "package wasi:random@0.2.6 { interface insecure-seed { insecure-seed: func() -> tuple<u64, u64>; } }"
;;! gives = "first: u64"
;;! returns = '{"first": 1}'
(module
  (import "wasi:random/insecure-seed@0.2.6" "insecure-seed" (func $seed (param i32)))
  (memory (export "memory") 1)
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (call $seed (i32.const 0x3000))
    (call $seed (i32.const 0x3010))
    (if (i64.ne (i64.load (i32.const 0x3000)) (i64.load (i32.const 0x3010))) (then (unreachable)))
    (i64.store (i32.const 1032) (i64.load (i32.const 0x3000)))
    (i32.const 1024)))
