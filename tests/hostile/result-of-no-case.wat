;; Returns a result that is neither success nor error.
;;! fails = "bad_output bad_output"
(module
  (memory (export "memory") 1)
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (i32.store8 (i32.const 1024) (i32.const 7))
    (i32.const 1024)))
