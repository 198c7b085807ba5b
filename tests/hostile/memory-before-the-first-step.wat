;; Declares more initial memory than its limit: the component is not instantiated.
;;! fails = "limit out_of_memory"
;;! says = "more than its 64MiB of memory"
;;! peak_memory = 0
(module
  (memory (export "memory") 1025)
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32) (i32.const 1024)))
