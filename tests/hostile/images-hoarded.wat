;; Makes pictures of a megapixel and keeps them.
;;! takes = "image: image, n: u32"
;;! gives = "n: u32"
;;! input = { image = "@640x480", n = 3 }
;;! fails = "limit too_many_pixels"
;;! says = "more than 32MiB of decoded pictures at once: drop those that are no longer needed"
(module
  (import "dovetail:vision/images@0.1.0" "[method]image.resize" (func $resize (param i32 i32 i32 i32)))
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0x4000))
  (func (export "acme:probe/task@1.0.0#run") (param $image i32) (param $n i32) (result i32)
    (loop $again
      (call $resize (local.get $image) (i32.const 1000) (i32.const 1000) (i32.const 0x3000))
      (br $again))
    (unreachable)))
