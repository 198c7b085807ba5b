;; Returns an address of its result that lies outside of its memory.
;;! fails = "bad_output bad_output"
;;! says = "pointer out of bounds of memory"
(module
  (memory (export "memory") 1)
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32) (i32.const 0x7ffffff8)))
