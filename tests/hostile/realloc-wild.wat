;; Returns an address from its allocator that lies outside of its memory.
;;! takes = "text: string"
;;! input.text = "anything"
;;! fails = "trap bad_call"
;;! says = "realloc return: beyond end of memory"
(module
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0xfffffff0))
  (func (export "acme:probe/task@1.0.0#run") (param i32 i32) (result i32) (i32.const 1024)))
