;; Logs a million lines: lines over the limit are dropped and counted, at almost no cost.
;;! limits.log = 1000
;;! returns = '{"n": 1000000}'
;;! log_lines = 20
;;! log_dropped = 999980
(module
  (import "dovetail:task/logging@0.1.0" "log" (func $log (param i32 i32 i32 i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 0x2000) "0123456789012345678901234567890123")
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (local $i i32)
    (loop $again
      (call $log (i32.const 2) (i32.const 0x2000) (i32.const 34) (i32.const 0) (i32.const 0))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $again (i32.lt_u (local.get $i) (i32.const 1000000))))
    (i32.store (i32.const 1032) (local.get $i))
    (i32.const 1024)))
