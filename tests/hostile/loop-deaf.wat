;; Asks in a tight loop whether the attempt must end, and ignores the answer.
;;! limits.time_ms = 100
;;! fails = "timeout timeout"
(module
  (import "dovetail:task/control@0.1.0" "cancelled" (func $cancelled (result i32)))
  (memory (export "memory") 1)
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (loop $again (drop (call $cancelled)) (br $again))
    (unreachable)))
