;; Asks a thousand times whether its streams are terminals: they never are.
;;! world = "import wasi:cli/terminal-stdout@0.2.6;"
;;! packages = '''
;;! package wasi:cli@0.2.6 { interface terminal-output { resource terminal-output; }
;;!   interface terminal-stdout { use terminal-output.{terminal-output}; get-terminal-stdout: func() -> option<terminal-output>; } }'''
;;! returns = '{"n": 0}'
(module
  (import "wasi:cli/terminal-stdout@0.2.6" "get-terminal-stdout" (func $terminal (param i32)))
  (memory (export "memory") 1)
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (local $i i32) (local $found i32)
    (loop $again
      (call $terminal (i32.const 0x3000))
      (local.set $found (i32.add (local.get $found) (i32.load8_u (i32.const 0x3000))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $again (i32.lt_u (local.get $i) (i32.const 1000))))
    (i32.store (i32.const 1032) (local.get $found))
    (i32.const 1024)))
