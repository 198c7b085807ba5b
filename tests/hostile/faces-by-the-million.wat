;; Passes a million boxes outside the picture in one call: each box of sixteen bytes would get an answer of a hundred
;; bytes.
;;! takes = "image: image, n: u32"
;;! gives = "code: string"
;;! input = { image = "@640x480", n = 3 }
;;! returns = '{"code": "too_many_faces"}'
(module
  (import "dovetail:vision/faces@0.1.0" "[static]embedder.open" (func $open (param i32 i32 i32 i32)))
  (import "dovetail:vision/faces@0.1.0" "[method]embedder.embed" (func $embed (param i32 i32 i32 i32 i32)))
  (memory (export "memory") 300)
  (global $next (mut i32) (i32.const 0x4000))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (if (i32.gt_u (local.get 3) (i32.const 0x1000)) (then (unreachable)))
    (global.set $next (i32.add (global.get $next) (i32.const 0x1000)))
    (global.get $next))
  (func (export "acme:probe/task@1.0.0#run") (param $image i32) (param $n i32) (result i32)
    (call $open (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0x3000))
    (call $embed (i32.load (i32.const 0x3008)) (local.get $image) (i32.const 0x10000) (i32.const 1000000) (i32.const 0x3000))
    ;; The error is the case `invalid-input`.
    (if (i32.or (i32.ne (i32.load8_u (i32.const 0x3000)) (i32.const 1)) (i32.load8_u (i32.const 0x3008))) (then (unreachable)))
    (i32.store (i32.const 1032) (i32.load (i32.const 0x3010)))
    (i32.store (i32.const 1036) (i32.load (i32.const 0x3014)))
    (i32.const 1024)))
