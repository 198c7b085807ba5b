;; Lists of lists, nested one deeper than allowed.
;;! takes = "deep: list<list<list<list<list<list<list<list<list<list<list<list<list<list<list<list<list<list<list<list<list<list<list<list<list<list<list<list<list<list<list<list<list<u8>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>"
;;! refused = "type_too_deep"
;;! says = "nested more than 32 deep"
(module
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0x4000))
  (func (export "acme:probe/task@1.0.0#run") (param i32 i32) (result i32) (i32.const 1024)))
