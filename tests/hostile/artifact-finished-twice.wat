;; Finishes one writer twice: the first call has already taken the handle.
;;! fails = "trap bad_handle"
;;! artifacts = 1
(module
  (import "dovetail:task/artifacts@0.1.0" "[constructor]writer" (func $writer (param i32 i32) (result i32)))
  (import "dovetail:task/artifacts@0.1.0" "[static]writer.finish" (func $finish (param i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 0x2000) "text/plain")
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0x4000))
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (local $writer i32)
    (local.set $writer (call $writer (i32.const 0x2000) (i32.const 10)))
    (call $finish (local.get $writer) (i32.const 0x3000))
    (call $finish (local.get $writer) (i32.const 0x3000))
    (i32.const 1024)))
