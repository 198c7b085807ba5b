;; Calls itself through a table, with a hundred live numbers in each frame, until no stack is left.
;;! fails = "trap stack_overflow"
(module
  (type $deeper (func (param i64 i64 i64 i64 i64 i64 i64 i64 i64 i64) (result i64)))
  (table funcref (elem $down))
  (memory (export "memory") 1)
  (func $down (type $deeper)
    (i64.add
      (call_indirect (type $deeper)
        (i64.add (local.get 0) (local.get 1)) (i64.add (local.get 1) (local.get 2)) (i64.add (local.get 2) (local.get 3))
        (i64.add (local.get 3) (local.get 4)) (i64.add (local.get 4) (local.get 5)) (i64.add (local.get 5) (local.get 6))
        (i64.add (local.get 6) (local.get 7)) (i64.add (local.get 7) (local.get 8)) (i64.add (local.get 8) (local.get 9))
        (i64.add (local.get 9) (local.get 0)) (i32.const 0))
      (i64.add (local.get 0) (i64.mul (local.get 3) (local.get 9)))))
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (drop (call $down (i64.const 1) (i64.const 2) (i64.const 3) (i64.const 4) (i64.const 5) (i64.const 6) (i64.const 7) (i64.const 8) (i64.const 9)
      (i64.const 10)))
    (i32.const 1024)))
