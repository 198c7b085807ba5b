;; Uses the largest possible number as a handle.
;;! takes = "image: image, n: u32"
;;! gives = "images: list<image>"
;;! input = { image = "@640x480", n = 3 }
;;! fails = "trap bad_handle"
;;! says = "a handle that is not its own"
(module
  (import "dovetail:vision/images@0.1.0" "[method]image.size" (func $size (param i32 i32)))
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0x4000))
  (func (export "acme:probe/task@1.0.0#run") (param $image i32) (param $n i32) (result i32)
    (call $size (i32.const -1) (i32.const 0x3000))
    (i32.const 1024)))
