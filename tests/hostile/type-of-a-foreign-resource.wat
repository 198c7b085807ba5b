;; Takes a resource of its own as input, which no record could hold.
;;! types = "resource mine;"
;;! takes = "mine: mine"
;;! refused = "unsupported_type"
;;! says = "input.mine"
(module
  (memory (export "memory") 1)
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32) (i32.const 1024)))
