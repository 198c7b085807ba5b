;; Calls itself until no stack is left.
;;! fails = "trap stack_overflow"
;;! says = "endless recursion?"
(module
  (memory (export "memory") 1)
  (func $run (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (i32.add (call $run (local.get 0)) (i32.const 1))))
