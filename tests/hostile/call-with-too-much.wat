;; Asks for the origin of a field whose name has 60 MiB.
;;! fails = "limit too_much_data"
(module
  (import "dovetail:task/context@0.1.0" "origin" (func $origin (param i32 i32 i32)))
  (memory (export "memory") 1000)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0x3000))
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (call $origin (i32.const 0x10000) (i32.const 60000000) (i32.const 0x3000))
    (i32.const 1024)))
