;; Writes some bytes and drops the writer without `finish`: no artifact is stored.
;;! returns = '{"n": 0}'
;;! artifacts = 0
(module
  (import "dovetail:task/artifacts@0.1.0" "[constructor]writer" (func $writer (param i32 i32) (result i32)))
  (import "dovetail:task/artifacts@0.1.0" "[method]writer.write" (func $write (param i32 i32 i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 0x2000) "text/plain")
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0x4000))
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (call $write (call $writer (i32.const 0x2000) (i32.const 10)) (i32.const 0x2000) (i32.const 10) (i32.const 0x3000))
    (i32.const 1024)))
