;; Opens and drops a hundred thousand detectors, one at a time: the guest never holds more than one, and none is left.
;;! returns = '{"n": 100000}'
(module
  (import "dovetail:vision/faces@0.1.0" "[static]detector.open" (func $open (param i32 i32 i32 i32)))
  (import "dovetail:vision/faces@0.1.0" "[resource-drop]detector" (func $drop (param i32)))
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0x4000))
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (local $i i32)
    (loop $again
      (call $open (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0x3000))
      (call $drop (i32.load (i32.const 0x3008)))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $again (i32.lt_u (local.get $i) (i32.const 100000))))
    (i32.store (i32.const 1032) (local.get $i))
    (i32.const 1024)))
