;; Returns a text of 5 MiB from its memory: an output may have 4 MiB.
;;! gives = "text: string"
;;! fails = "bad_output output_too_large"
;;! says = "larger than its limit of 4MiB as JSON: write bulk data into an artifact"
(module
  (memory (export "memory") 100)
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (memory.fill (i32.const 0x10000) (i32.const 120) (i32.const 0x500000))
    (i32.store (i32.const 1032) (i32.const 0x10000))
    (i32.store (i32.const 1036) (i32.const 0x500000))
    (i32.const 1024)))
