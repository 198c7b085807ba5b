;; Sets a detector's options to NaN, minus infinity, 0 and the largest number: the options are clamped, or the detector
;; refuses them.
;;! takes = "image: image, n: u32"
;;! gives = "n: u32"
;;! input = { image = "@640x480", n = 3 }
;;! opencv = true
;;! returns = '{"n": 10}'
(module
  (import "dovetail:vision/faces@0.1.0" "[static]detector.open" (func $open (param i32 i32 i32 i32)))
  (import "dovetail:vision/faces@0.1.0" "[method]detector.set-min-confidence" (func $confidence (param i32 f32)))
  (import "dovetail:vision/faces@0.1.0" "[method]detector.set-max-faces" (func $faces (param i32 i32)))
  (import "dovetail:vision/faces@0.1.0" "[method]detector.set-input-side" (func $side (param i32 i32)))
  (import "dovetail:vision/faces@0.1.0" "[method]detector.detect" (func $detect (param i32 i32 i32)))
  (memory (export "memory") 16)
  (data (i32.const 0x2000) "tiny")
  (global $next (mut i32) (i32.const 0x10000))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $at i32)
    (local.set $at (global.get $next))
    (global.set $next (i32.and (i32.add (i32.add (local.get $at) (local.get 3)) (i32.const 15)) (i32.const -16)))
    (local.get $at))
  (func (export "acme:probe/task@1.0.0#run") (param $image i32) (param $n i32) (result i32)
    (local $detector i32) (local $refused i32)
    (call $open (i32.const 1) (i32.const 0x2000) (i32.const 4) (i32.const 0x3000))
    (local.set $detector (i32.load (i32.const 0x3008)))
    (call $confidence (local.get $detector) (f32.const nan))
    (call $confidence (local.get $detector) (f32.const -inf))
    (call $faces (local.get $detector) (i32.const -1))
    (call $side (local.get $detector) (i32.const -1))
    (call $detect (local.get $detector) (local.get $image) (i32.const 0x3000))
    (local.set $refused (i32.mul (i32.load8_u (i32.const 0x3000)) (i32.const 10)))
    (call $side (local.get $detector) (i32.const 0))
    (call $faces (local.get $detector) (i32.const 0))
    (call $detect (local.get $detector) (local.get $image) (i32.const 0x3000))
    (i32.store (i32.const 1032) (i32.add (local.get $refused) (i32.load8_u (i32.const 0x3000))))
    (i32.const 1024)))
