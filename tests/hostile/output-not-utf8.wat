;; Returns a text that is not UTF-8.
;;! gives = "text: string"
;;! fails = "bad_output bad_output"
;;! says = "invalid utf-8"
(module
  (memory (export "memory") 1)
  (data (i32.const 0x2000) "fine up to here \ff\fe")
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (i32.store (i32.const 1032) (i32.const 0x2000))
    (i32.store (i32.const 1036) (i32.const 18))
    (i32.const 1024)))
