;; Divides by zero.
;;! fails = "trap integer_divide_by_zero"
(module
  (memory (export "memory") 1)
  (func (export "acme:probe/task@1.0.0#run") (param $n i32) (result i32)
    (i32.div_u (local.get $n) (i32.const 0))))
