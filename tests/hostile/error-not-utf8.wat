;; Returns an error whose message is not UTF-8.
;;! fails = "bad_output bad_output"
(module
  (memory (export "memory") 1)
  (data (i32.const 0x2000) "\ff\fe")
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (i32.store8 (i32.const 1024) (i32.const 1))
    (i32.store8 (i32.const 1032) (i32.const 3))
    (i32.store (i32.const 1048) (i32.const 0x2000))
    (i32.store (i32.const 1052) (i32.const 2))
    (i32.const 1024)))
