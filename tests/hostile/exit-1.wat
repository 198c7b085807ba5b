;; Ends its process with an error instead of returning.
;;! world = "import wasi:cli/exit@0.2.6;"
;;! packages = "package wasi:cli@0.2.6 { interface exit { exit: func(status: result); } }"
;;! fails = "trap exit"
;;! says = "(exit status 1) instead of returning"
(module
  (import "wasi:cli/exit@0.2.6" "exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (call $exit (i32.const 1))
    (i32.const 1024)))
