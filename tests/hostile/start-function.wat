;; Has a start function that behaves well: `run` sees its effect.
;;! returns = '{"n": 42}'
(module
  (memory (export "memory") 1)
  (func $begin (i32.store (i32.const 1032) (i32.const 42)))
  (start $begin)
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32) (i32.const 1024)))
