;; Reads the largest length at the largest offset.
;;! takes = "artifact: artifact"
;;! input.artifact = "@a few bytes"
;;! returns = '{"n": 0}'
(module
  (import "dovetail:task/artifacts@0.1.0" "[method]artifact.read" (func $read (param i32 i64 i32 i32)))
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0x4000))
  (func (export "acme:probe/task@1.0.0#run") (param $artifact i32) (result i32)
    (call $read (local.get $artifact) (i64.const -1) (i32.const -1) (i32.const 0x3000))
    (if (i32.load8_u (i32.const 0x3000)) (then (unreachable)))
    (i32.store (i32.const 1032) (i32.load (i32.const 0x300c)))
    (i32.const 1024)))
