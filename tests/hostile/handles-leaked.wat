;; Opens as many detectors as possible and drops none of them.
;;! fails = "limit too_many_handles"
;;! says = "more than 1024 images, artifacts, models and writers at once"
(module
  (import "dovetail:vision/faces@0.1.0" "[static]detector.open" (func $open (param i32 i32 i32 i32)))
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0x4000))
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (loop $again
      (call $open (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0x3000))
      (br $again))
    (unreachable)))
