;; Waits until the host says that no time is left, and only then returns an error: the error does not count, although
;; other retry rules apply to an error than to a timeout.
;;! limits.time_ms = 100
;;! fails = "timeout timeout"
(module
  (import "dovetail:task/context@0.1.0" "remaining-ms" (func $left (result i64)))
  (memory (export "memory") 1)
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (loop $again (br_if $again (i64.ne (call $left) (i64.const 0))))
    (i32.store8 (i32.const 1024) (i32.const 1))
    (i32.store8 (i32.const 1032) (i32.const 3))
    (i32.const 1024)))
