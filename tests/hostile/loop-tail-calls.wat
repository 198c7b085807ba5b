;; Calls itself by tail calls for ever: no stack fills, and there is no loop.
;;! limits.time_ms = 100
;;! fails = "timeout timeout"
(module
  (memory (export "memory") 1)
  (func $again (param i32) (result i32) (return_call $again (i32.add (local.get 0) (i32.const 1))))
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32) (call $again (local.get 0))))
