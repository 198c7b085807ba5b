;; Returns an error with a million details, each a pair of empty texts.
;;! fails = "limit too_much_data"
(module
  (memory (export "memory") 300)
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (i32.store8 (i32.const 1024) (i32.const 1))
    (i32.store8 (i32.const 1032) (i32.const 3))
    (i32.store (i32.const 1080) (i32.const 0x10000))
    (i32.store (i32.const 1084) (i32.const 1000000))
    (i32.const 1024)))
