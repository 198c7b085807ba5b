;; Calls a function of another type.
;;! fails = "trap bad_function_pointer"
(module
  (func $other (param i64))
  (table funcref (elem $other))
  (memory (export "memory") 1)
  (func (export "acme:probe/task@1.0.0#run") (param $n i32) (result i32)
    (call_indirect (result i32) (i32.const 0))))
