;; Returns a text of 2 GiB from a memory of 64 KiB.
;;! gives = "text: string"
;;! fails = "bad_output bad_output"
;;! says = "out of bounds of memory"
(module
  (memory (export "memory") 1)
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (i32.store (i32.const 1032) (i32.const 0x2000))
    (i32.store (i32.const 1036) (i32.const 0x7fffffff))
    (i32.const 1024)))
