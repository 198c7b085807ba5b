;; Returns sixty million elements of one byte each; each takes forty bytes in the host.
;;! gives = "items: list<result>"
;;! fails = "limit too_much_data"
;;! says = "use an artifact for bulk data"
(module
  (memory (export "memory") 1000)
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (i32.store (i32.const 1032) (i32.const 0x10000))
    (i32.store (i32.const 1036) (i32.const 60000000))
    (i32.const 1024)))
