;; Returns an address of its result that is not aligned.
;;! fails = "bad_output bad_output"
;;! says = "the result of `run` cannot be read: return pointer not aligned"
(module
  (memory (export "memory") 1)
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32) (i32.const 1025)))
