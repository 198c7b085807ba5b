;; Has the grant `clocks`, and sleeps for 584 years.
;;! grants = "clocks = true"
;;! world = "import wasi:clocks/monotonic-clock@0.2.6;"
;;! packages = '''
;;! package wasi:io@0.2.6 { interface poll { resource pollable { block: func(); } } }
;;! package wasi:clocks@0.2.6 { interface monotonic-clock {
;;!   use wasi:io/poll@0.2.6.{pollable}; subscribe-duration: func(when: u64) -> pollable; } }'''
;;! limits.time_ms = 100
;;! fails = "timeout timeout"
(module
  (import "wasi:clocks/monotonic-clock@0.2.6" "subscribe-duration" (func $sleep (param i64) (result i32)))
  (import "wasi:io/poll@0.2.6" "[method]pollable.block" (func $block (param i32)))
  (memory (export "memory") 1)
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (call $block (call $sleep (i64.const -1)))
    (i32.const 1024)))
