;; Logs a field with JSON that is nested a million deep: the field is kept as text.
;;! limits.log = 4194304
;;! returns = '{"n": 0}'
;;! log_lines = 1
(module
  (import "dovetail:task/logging@0.1.0" "log" (func $log (param i32 i32 i32 i32 i32)))
  (memory (export "memory") 20)
  (data (i32.const 0x2000) "\08\20\00\00\01\00\00\00k")
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (memory.fill (i32.const 0x10000) (i32.const 91) (i32.const 1000000))
    (i32.store (i32.const 0x3000) (i32.const 0x2008))
    (i32.store (i32.const 0x3004) (i32.const 1))
    (i32.store (i32.const 0x3008) (i32.const 0x10000))
    (i32.store (i32.const 0x300c) (i32.const 1000000))
    (call $log (i32.const 2) (i32.const 0x2008) (i32.const 1) (i32.const 0x3000) (i32.const 1))
    (i32.const 1024)))
