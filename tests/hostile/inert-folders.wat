;; Asks a thousand times for preopened folders: there is none.
;;! world = "import wasi:filesystem/preopens@0.2.6;"
;;! packages = '''
;;! package wasi:filesystem@0.2.6 { interface types { resource descriptor; }
;;!   interface preopens { use types.{descriptor}; get-directories: func() -> list<tuple<descriptor, string>>; } }'''
;;! returns = '{"n": 0}'
(module
  (import "wasi:filesystem/preopens@0.2.6" "get-directories" (func $folders (param i32)))
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0x4000))
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (local $i i32) (local $found i32)
    (loop $again
      (call $folders (i32.const 0x3000))
      (local.set $found (i32.add (local.get $found) (i32.load (i32.const 0x3004))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $again (i32.lt_u (local.get $i) (i32.const 1000))))
    (i32.store (i32.const 1032) (local.get $found))
    (i32.const 1024)))
