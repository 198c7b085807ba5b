;; Returns a surrogate as a character.
;;! gives = "letter: char"
;;! fails = "bad_output bad_output"
(module
  (memory (export "memory") 1)
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (i32.store (i32.const 1032) (i32.const 0xd800))
    (i32.const 1024)))
