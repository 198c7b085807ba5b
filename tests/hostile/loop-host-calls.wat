;; A tight loop of calls into the host, each of which is short.
;;! limits.time_ms = 100
;;! fails = "timeout timeout"
(module
  (import "dovetail:task/context@0.1.0" "attempt" (func $attempt (result i32)))
  (memory (export "memory") 1)
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (loop $again (drop (call $attempt)) (br $again))
    (unreachable)))
