;; Returns one address for every allocation, so that its inputs overwrite one another: that harms only the guest itself.
;;! takes = "texts: list<string>"
;;! input.texts = ["one", "two", "three"]
;;! returns = '{"n": 3}'
(module
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0x3000))
  (func (export "acme:probe/task@1.0.0#run") (param i32 i32) (result i32)
    (i32.store (i32.const 1032) (local.get 1))
    (i32.const 1024)))
