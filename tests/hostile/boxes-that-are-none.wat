;; Crops boxes that are not finite, empty or negative: each gets the error `invalid-input`, and the task continues.
;;! takes = "image: image, n: u32"
;;! gives = "n: u32"
;;! input = { image = "@640x480", n = 3 }
;;! returns = '{"n": 5}'
(module
  (import "dovetail:vision/images@0.1.0" "[method]image.crop" (func $crop (param i32 f32 f32 f32 f32 i32)))
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0x4000))
  (func $refused (param $image i32) (param f32 f32 f32 f32) (result i32)
    (call $crop (local.get $image) (local.get 1) (local.get 2) (local.get 3) (local.get 4) (i32.const 0x3000))
    (i32.and (i32.eq (i32.load8_u (i32.const 0x3000)) (i32.const 1)) (i32.eqz (i32.load8_u (i32.const 0x3008)))))
  (func (export "acme:probe/task@1.0.0#run") (param $image i32) (param $n i32) (result i32)
    (i32.store (i32.const 1032)
      (i32.add (call $refused (local.get $image) (f32.const nan) (f32.const 1) (f32.const 5) (f32.const nan))
      (i32.add (call $refused (local.get $image) (f32.const 1) (f32.const inf) (f32.const -inf) (f32.const 5))
      (i32.add (call $refused (local.get $image) (f32.const 1) (f32.const 1) (f32.const 0) (f32.const 5))
      (i32.add (call $refused (local.get $image) (f32.const 1) (f32.const 1) (f32.const -5) (f32.const -5))
        (call $refused (local.get $image) (f32.const nan) (f32.const nan) (f32.const nan) (f32.const nan)))))))
    (i32.const 1024)))
