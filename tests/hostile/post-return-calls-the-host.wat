;; Returns; its post-return function then calls the host.
;;! fails = "trap bad_call"
;;! says = "cannot leave component instance"
(module
  (import "dovetail:task/context@0.1.0" "attempt" (func $attempt (result i32)))
  (memory (export "memory") 1)
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32) (i32.const 1024))
  (func (export "cabi_post_acme:probe/task@1.0.0#run") (param i32) (drop (call $attempt))))
