;; Divides the smallest integer by -1, the one quotient that does not fit.
;;! fails = "trap integer_overflow"
(module
  (memory (export "memory") 1)
  (func (export "acme:probe/task@1.0.0#run") (param $n i32) (result i32)
    (i32.div_s (i32.const 0x80000000) (i32.sub (i32.const 0) (local.get $n)))))
