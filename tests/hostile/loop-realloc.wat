;; Never returns from its allocator, which the host calls for the memory of the input.
;;! takes = "text: string"
;;! input.text = "anything"
;;! limits.time_ms = 100
;;! fails = "timeout timeout"
(module
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (loop $again (br $again)) (unreachable))
  (func (export "acme:probe/task@1.0.0#run") (param i32 i32) (result i32) (unreachable)))
