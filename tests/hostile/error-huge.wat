;; Returns an error with a code of 1 MiB and a message of 8 MiB, both of control characters and letters: the host cuts
;; and cleans them.
;;! fails = "failed xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
;;! says = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
(module
  (memory (export "memory") 200)
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (memory.fill (i32.const 0x10000) (i32.const 120) (i32.const 0x800000))
    (i32.store8 (i32.const 0x10100) (i32.const 27))
    (i32.store8 (i32.const 1024) (i32.const 1))
    (i32.store8 (i32.const 1032) (i32.const 3))
    (i32.store (i32.const 1040) (i32.const 0x10000))
    (i32.store (i32.const 1044) (i32.const 0x100000))
    (i32.store (i32.const 1048) (i32.const 0x10000))
    (i32.store (i32.const 1052) (i32.const 0x800000))
    (i32.const 1024)))
