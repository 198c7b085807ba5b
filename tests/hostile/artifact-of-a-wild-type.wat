;; Uses 16 MiB of text as a media type: `finish` refuses it, and no artifact is stored.
;;! returns = '{"n": 1}'
;;! artifacts = 0
(module
  (import "dovetail:task/artifacts@0.1.0" "[constructor]writer" (func $writer (param i32 i32) (result i32)))
  (import "dovetail:task/artifacts@0.1.0" "[static]writer.finish" (func $finish (param i32 i32)))
  (memory (export "memory") 300)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0x4000))
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (call $finish (call $writer (i32.const 0x10000) (i32.const 0x1000000)) (i32.const 0x3000))
    (i32.store (i32.const 1032) (i32.load8_u (i32.const 0x3000)))
    (i32.const 1024)))
