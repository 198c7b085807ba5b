;; Copies across the end of its memory.
;;! fails = "trap out_of_bounds"
(module
  (memory (export "memory") 1)
  (func (export "acme:probe/task@1.0.0#run") (param $n i32) (result i32)
    (memory.copy (i32.const 65000) (i32.const 0) (i32.const 65000))
    (i32.const 1024)))
