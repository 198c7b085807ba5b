;; Returns; its post-return function then traps.
;;! fails = "trap unreachable"
(module
  (memory (export "memory") 1)
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32) (i32.const 1024))
  (func (export "cabi_post_acme:probe/task@1.0.0#run") (param i32) (unreachable)))
