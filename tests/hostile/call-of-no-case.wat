;; Logs at a level that does not exist.
;;! fails = "trap bad_call"
(module
  (import "dovetail:task/logging@0.1.0" "log" (func $log (param i32 i32 i32 i32 i32)))
  (memory (export "memory") 1)
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (call $log (i32.const 99) (i32.const 0x2000) (i32.const 2) (i32.const 0) (i32.const 0))
    (i32.const 1024)))
