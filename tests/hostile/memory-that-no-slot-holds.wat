;; Declares more initial memory than any limit allows.
;;! refused = "component_too_large"
;;! says = "memory"
(module
  (memory (export "memory") 4097)
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32) (i32.const 1024)))
