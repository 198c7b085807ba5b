;; Returns an address from its allocator that is not aligned.
;;! takes = "numbers: list<u32>"
;;! input.numbers = [1, 2, 3]
;;! fails = "trap bad_call"
;;! says = "realloc return: result not aligned"
(module
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0x3001))
  (func (export "acme:probe/task@1.0.0#run") (param i32 i32) (result i32) (i32.const 1024)))
