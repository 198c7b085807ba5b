;; Converts NaN to an integer.
;;! fails = "trap bad_conversion_to_integer"
(module
  (memory (export "memory") 1)
  (func (export "acme:probe/task@1.0.0#run") (param $n i32) (result i32)
    (i32.trunc_f32_u (f32.div (f32.const 0) (f32.const 0)))))
