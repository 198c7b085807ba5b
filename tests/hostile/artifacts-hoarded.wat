;; Writes into an artifact that it never finishes, 1 MiB at a time, until the host refuses more: the guest gets an
;; error, and nothing of the artifact is left.
;;! returns = '{"n": 16}'
;;! artifacts = 0
(module
  (import "dovetail:task/artifacts@0.1.0" "[constructor]writer" (func $writer (param i32 i32) (result i32)))
  (import "dovetail:task/artifacts@0.1.0" "[method]writer.write" (func $write (param i32 i32 i32 i32)))
  (memory (export "memory") 20)
  (data (i32.const 0x2000) "text/plain")
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0x4000))
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (local $writer i32) (local $i i32)
    (local.set $writer (call $writer (i32.const 0x2000) (i32.const 10)))
    (loop $again
      (call $write (local.get $writer) (i32.const 0x10000) (i32.const 0x100000) (i32.const 0x3000))
      (if (i32.eqz (i32.load8_u (i32.const 0x3000)))
        (then (local.set $i (i32.add (local.get $i) (i32.const 1))) (br $again))))
    (i32.store (i32.const 1032) (local.get $i))
    (i32.const 1024)))
