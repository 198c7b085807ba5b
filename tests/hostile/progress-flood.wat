;; Reports its progress two hundred thousand times, with NaN and minus infinity.
;;! returns = '{"n": 0}'
(module
  (import "dovetail:task/control@0.1.0" "progress" (func $progress (param f32 i32 i32 i32)))
  (memory (export "memory") 1)
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (local $i i32)
    (loop $again
      (call $progress (f32.const nan) (i32.const 1) (i32.const 0) (i32.const 65536))
      (call $progress (f32.const -inf) (i32.const 0) (i32.const 0) (i32.const 0))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $again (i32.lt_u (local.get $i) (i32.const 100000))))
    (i32.const 1024)))
