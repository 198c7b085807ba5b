;; Returns a detector as an image.
;;! takes = "image: image, n: u32"
;;! gives = "images: list<image>"
;;! input = { image = "@640x480", n = 3 }
;;! fails = "trap bad_handle"
;;! says = "a handle that is not its own"
(module
  (import "dovetail:vision/faces@0.1.0" "[static]detector.open" (func $open (param i32 i32 i32 i32)))
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0x4000))
  (func (export "acme:probe/task@1.0.0#run") (param $image i32) (param $n i32) (result i32)
    (call $open (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0x3000))
    (i32.store (i32.const 1032) (i32.const 0x3008))
    (i32.store (i32.const 1036) (i32.const 1))
    (i32.const 1024)))
