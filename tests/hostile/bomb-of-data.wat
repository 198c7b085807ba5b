;; Two bytes of data 12 MiB apart: the compiled image of the memory is as large as the gap.
;;! compile.code = 1048576
;;! refused = "compile_too_expensive"
;;! says = "at most 1MiB are taken"
(module
  (memory (export "memory") 200)
  (data (i32.const 0) "first")
  (data (i32.const 12582912) "last")
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32) (i32.const 1024)))
