;; Loops without calling the host: only the epoch ticker can end the loop.
;;! limits.time_ms = 100
;;! fails = "timeout timeout"
;;! says = "longer than its limit of 100ms"
(module
  (memory (export "memory") 1)
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (loop $again (br $again))
    (unreachable)))
