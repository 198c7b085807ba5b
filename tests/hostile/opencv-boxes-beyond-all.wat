;; Asks for vectors of boxes that are larger than any picture and cover all of it: no box crashes the host, and each box
;; gets an answer.
;;! takes = "image: image, n: u32"
;;! gives = "n: u32"
;;! input = { image = "@640x480", n = 3 }
;;! opencv = true
;;! returns = '{"n": 4}'
(module
  (import "dovetail:vision/faces@0.1.0" "[static]embedder.open" (func $open (param i32 i32 i32 i32)))
  (import "dovetail:vision/faces@0.1.0" "[method]embedder.embed" (func $embed (param i32 i32 i32 i32 i32)))
  (memory (export "memory") 16)
  (global $next (mut i32) (i32.const 0x10000))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $at i32)
    (local.set $at (global.get $next))
    (global.set $next (i32.and (i32.add (i32.add (local.get $at) (local.get 3)) (i32.const 15)) (i32.const -16)))
    (local.get $at))
  (func $box (param $n i32) (param f32 f32 f32 f32)
    (local $at i32)
    (local.set $at (i32.add (i32.const 0x4000) (i32.mul (local.get $n) (i32.const 16))))
    (f32.store (local.get $at) (local.get 1)) (f32.store offset=4 (local.get $at) (local.get 2))
    (f32.store offset=8 (local.get $at) (local.get 3)) (f32.store offset=12 (local.get $at) (local.get 4)))
  (func (export "acme:probe/task@1.0.0#run") (param $image i32) (param $n i32) (result i32)
    (call $box (i32.const 0) (f32.const -1e6) (f32.const -1e6) (f32.const 2e6) (f32.const 2e6))
    (call $box (i32.const 1) (f32.const -1e30) (f32.const -1e30) (f32.const 2e30) (f32.const 2e30))
    (call $box (i32.const 2) (f32.const -3.4e38) (f32.const 0) (f32.const 3.4e38) (f32.const 3.4e38))
    (call $box (i32.const 3) (f32.const 639) (f32.const 479) (f32.const 3.4e38) (f32.const 1e-40))
    (call $open (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0x3000))
    (call $embed (i32.load (i32.const 0x3008)) (local.get $image) (i32.const 0x4000) (i32.const 4) (i32.const 0x3000))
    (if (i32.load8_u (i32.const 0x3000)) (then (unreachable)))
    (i32.store (i32.const 1032) (i32.load (i32.const 0x300c)))
    (i32.const 1024)))
