;; Returns 1 MiB of zero bytes, each of which takes six bytes as JSON.
;;! gives = "text: string"
;;! fails = "bad_output output_too_large"
(module
  (memory (export "memory") 20)
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (i32.store (i32.const 1032) (i32.const 0x10000))
    (i32.store (i32.const 1036) (i32.const 0x100000))
    (i32.const 1024)))
