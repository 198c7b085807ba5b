;; Asks for more memory for ever, whatever the answer.
;;! limits = { time_ms = 100, memory = 2097152 }
;;! fails = "timeout timeout"
;;! peak_memory = 2097152
(module
  (memory (export "memory") 1)
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (loop $again (drop (memory.grow (i32.const 1))) (br $again))
    (unreachable)))
