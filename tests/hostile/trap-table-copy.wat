;; Copies across the end of a table.
;;! fails = "trap bad_function_pointer"
(module
  (table 4 funcref)
  (memory (export "memory") 1)
  (func (export "acme:probe/task@1.0.0#run") (param $n i32) (result i32)
    (table.copy (i32.const 2) (i32.const 0) (i32.const 3))
    (i32.const 1024)))
