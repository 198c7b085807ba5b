;; Executes `unreachable`, as every abort does.
;;! fails = "trap unreachable"
(module
  (memory (export "memory") 1)
  (func (export "acme:probe/task@1.0.0#run") (param $n i32) (result i32)
    (unreachable)))
