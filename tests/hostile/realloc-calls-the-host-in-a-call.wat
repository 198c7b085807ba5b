;; Calls the host from its allocator while the host answers another call.
;;! fails = "trap bad_call"
;;! says = "cannot leave component instance"
(module
  (import "dovetail:task/context@0.1.0" "step" (func $step (param i32)))
  (import "dovetail:task/context@0.1.0" "attempt" (func $attempt (result i32)))
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (call $attempt))
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (call $step (i32.const 0x3000))
    (i32.const 1024)))
