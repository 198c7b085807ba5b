;; Reads far beyond its memory.
;;! fails = "trap out_of_bounds"
(module
  (memory (export "memory") 1)
  (func (export "acme:probe/task@1.0.0#run") (param $n i32) (result i32)
    (i32.load (i32.const 0xfffffff0))))
