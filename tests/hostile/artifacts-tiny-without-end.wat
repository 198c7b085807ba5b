;; Writes different artifacts of four bytes without end. They are few bytes, but each is a file, so each counts as one
;; block of the disk.
;;! limits = { artifacts = 65536 }
;;! fails = "limit too_many_artifacts"
;;! says = "each counts 4KiB at least"
;;! artifacts = 16
(module
  (import "dovetail:task/artifacts@0.1.0" "[constructor]writer" (func $writer (param i32 i32) (result i32)))
  (import "dovetail:task/artifacts@0.1.0" "[method]writer.write" (func $write (param i32 i32 i32 i32)))
  (import "dovetail:task/artifacts@0.1.0" "[static]writer.finish" (func $finish (param i32 i32)))
  (import "dovetail:task/artifacts@0.1.0" "[resource-drop]artifact" (func $forget (param i32)))
  (memory (export "memory") 20)
  (data (i32.const 0x2000) "text/plain")
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0x4000))
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (local $writer i32) (local $i i32)
    (loop $again
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (i32.store (i32.const 0x10000) (local.get $i))
      (local.set $writer (call $writer (i32.const 0x2000) (i32.const 10)))
      (call $write (local.get $writer) (i32.const 0x10000) (i32.const 4) (i32.const 0x3000))
      (call $finish (local.get $writer) (i32.const 0x3000))
      (call $forget (i32.load (i32.const 0x3008)))
      (br $again))
    unreachable))
