;; Never ends its module's start function: the time of an attempt begins before the first instruction.
;;! limits.time_ms = 100
;;! fails = "timeout timeout"
(module
  (memory (export "memory") 1)
  (func $begin (loop $again (br $again)))
  (start $begin)
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32) (unreachable)))
