;; Declares a table of a thousand million functions.
;;! refused = "component_too_large"
;;! says = "table"
(module
  (table 1000000000 funcref)
  (memory (export "memory") 1)
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32) (i32.const 1024)))
