;; Asks for all memory that 32 bits can address, in one step.
;;! fails = "limit out_of_memory"
;;! says = "more than its 64MiB of memory (it asked for 4294901760 bytes more)"
;;! peak_memory = 65536
(module
  (memory (export "memory") 1)
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (if (i32.eq (memory.grow (i32.const 65535)) (i32.const -1)) (then (unreachable)))
    (i32.const 1024)))
