;; Recurses as compiled code with large values does: its shadow stack in memory runs below address 0.
;;! fails = "trap out_of_bounds"
;;! says = "its shadow stack overflowed"
(module
  (memory (export "memory") 4)
  (global $stack (mut i32) (i32.const 262144))
  (func $down
    (global.set $stack (i32.sub (global.get $stack) (i32.const 32768)))
    (i32.store8 (global.get $stack) (i32.const 1))
    (call $down)
    (global.set $stack (i32.add (global.get $stack) (i32.const 32768))))
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32) (call $down) (i32.const 1024)))
