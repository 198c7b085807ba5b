;; Fills and copies large ranges of memory without end: the code of one fill is the runtime's, and does not check the
;; epoch.
;;! limits.time_ms = 100
;;! fails = "timeout timeout"
(module
  (memory (export "memory") 900)
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (loop $again
      (memory.fill (i32.const 0) (i32.const 7) (i32.const 58982400))
      (memory.copy (i32.const 1) (i32.const 0) (i32.const 58982399))
      (br $again))
    (unreachable)))
