;; Logs lines of 16 MiB until its time is over.
;;! limits.time_ms = 100
;;! fails = "timeout timeout"
;;! log_lines = 0
(module
  (import "dovetail:task/logging@0.1.0" "log" (func $log (param i32 i32 i32 i32 i32)))
  (memory (export "memory") 300)
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (loop $again
      (call $log (i32.const 2) (i32.const 0x10000) (i32.const 0x1000000) (i32.const 0) (i32.const 0))
      (br $again))
    (unreachable)))
