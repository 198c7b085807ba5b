;; Aborts before `run` is called.
;;! fails = "trap unreachable"
(module
  (memory (export "memory") 1)
  (func $begin (unreachable))
  (start $begin)
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32) (i32.const 1024)))
