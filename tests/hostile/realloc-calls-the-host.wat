;; Calls the host from its allocator while the host passes the input.
;;! takes = "text: string"
;;! input.text = "anything"
;;! fails = "trap bad_call"
;;! says = "cannot leave component instance"
(module
  (import "dovetail:task/context@0.1.0" "attempt" (func $attempt (result i32)))
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (call $attempt))
  (func (export "acme:probe/task@1.0.0#run") (param i32 i32) (result i32) (i32.const 1024)))
