;; Logs the lines that the SDK's panic hook logs, and traps.
;;! fails = "panic panic"
;;! says = "the task panicked at src/lib.rs:7: no"
;;! log_lines = 1
(module
  (import "dovetail:task/logging@0.1.0" "log" (func $log (param i32 i32 i32 i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 0x2000) "panicpanic.filesrc/lib.rspanic.line7panic.messageno")
  (data (i32.const 0x3000) "\05\20\00\00\0a\00\00\00\0f\20\00\00\0a\00\00\00\19\20\00\00\0a\00\00\00\23\20\00\00\01\00\00\00\24\20\00\00\0d\00\00\00\31\20\00\00\02\00\00\00")
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (call $log (i32.const 4) (i32.const 0x2000) (i32.const 5) (i32.const 0x3000) (i32.const 3))
    (unreachable)))
