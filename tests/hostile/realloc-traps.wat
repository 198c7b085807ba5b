;; Traps in its allocator.
;;! takes = "text: string"
;;! input.text = "anything"
;;! fails = "trap unreachable"
(module
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (unreachable))
  (func (export "acme:probe/task@1.0.0#run") (param i32 i32) (result i32) (i32.const 1024)))
