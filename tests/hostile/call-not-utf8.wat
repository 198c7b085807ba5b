;; Passes the host a text that is not UTF-8.
;;! fails = "trap bad_call"
;;! says = "invalid utf-8"
;;! log_lines = 0
(module
  (import "dovetail:task/logging@0.1.0" "log" (func $log (param i32 i32 i32 i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 0x2000) "\ff\fe")
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (call $log (i32.const 2) (i32.const 0x2000) (i32.const 2) (i32.const 0) (i32.const 0))
    (i32.const 1024)))
