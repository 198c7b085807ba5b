;; Asks a thousand times for the environment, the arguments and the current folder: all are empty.
;;! world = "import wasi:cli/environment@0.2.6;"
;;! packages = '''
;;! package wasi:cli@0.2.6 { interface environment {
;;!   get-environment: func() -> list<tuple<string, string>>; get-arguments: func() -> list<string>; initial-cwd: func() -> option<string>; } }'''
;;! returns = '{"n": 0}'
(module
  (import "wasi:cli/environment@0.2.6" "get-environment" (func $environment (param i32)))
  (import "wasi:cli/environment@0.2.6" "get-arguments" (func $arguments (param i32)))
  (import "wasi:cli/environment@0.2.6" "initial-cwd" (func $folder (param i32)))
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0x4000))
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (local $i i32) (local $found i32)
    (loop $again
      (call $environment (i32.const 0x3000))
      (call $arguments (i32.const 0x3010))
      (call $folder (i32.const 0x3020))
      (local.set $found
        (i32.add (local.get $found)
          (i32.add (i32.load (i32.const 0x3004)) (i32.add (i32.load (i32.const 0x3014)) (i32.load8_u (i32.const 0x3020))))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $again (i32.lt_u (local.get $i) (i32.const 1000))))
    (i32.store (i32.const 1032) (local.get $found))
    (i32.const 1024)))
