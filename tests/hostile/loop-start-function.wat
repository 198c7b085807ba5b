;; The module's start function never ends: the time of an attempt begins before its first instruction.
;;! limits.time_ms = 100
;;! fails = "timeout timeout"
(module
  (memory (export "memory") 1)
  (func $begin (loop $again (br $again)))
  (start $begin)
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32) (unreachable)))
