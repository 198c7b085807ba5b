;; Takes a function from beyond the end of its table.
;;! fails = "trap bad_function_pointer"
(module
  (table 1 funcref)
  (memory (export "memory") 1)
  (func (export "acme:probe/task@1.0.0#run") (param $n i32) (result i32)
    (call_indirect (result i32) (i32.const 77))))
