;; Copies from a data segment that it has dropped.
;;! fails = "trap out_of_bounds"
(module
  (data $text "text")
  (memory (export "memory") 1)
  (func (export "acme:probe/task@1.0.0#run") (param $n i32) (result i32)
    (data.drop $text)
    (memory.init $text (i32.const 0) (i32.const 0) (i32.const 4))
    (i32.const 1024)))
