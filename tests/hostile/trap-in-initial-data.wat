;; Has initial data that does not fit into its memory: the instantiation traps.
;;! fails = "trap out_of_bounds"
(module
  (memory (export "memory") 1)
  (data (i32.const 65535) "too long")
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32) (i32.const 1024)))
