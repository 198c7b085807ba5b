;; Returns a case that its enum does not have.
;;! types = "enum colour { red, green }"
;;! gives = "colour: colour"
;;! fails = "bad_output bad_output"
(module
  (memory (export "memory") 1)
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (i32.store8 (i32.const 1032) (i32.const 200))
    (i32.const 1024)))
