;; Returns one handle twice.
;;! takes = "image: image, n: u32"
;;! gives = "images: list<image>"
;;! input = { image = "@640x480", n = 3 }
;;! fails = "trap bad_handle"
;;! says = "a handle that is not its own"
(module
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0x4000))
  (func (export "acme:probe/task@1.0.0#run") (param $image i32) (param $n i32) (result i32)
    (i32.store (i32.const 0x3000) (local.get $image))
    (i32.store (i32.const 0x3004) (local.get $image))
    (i32.store (i32.const 1032) (i32.const 0x3000))
    (i32.store (i32.const 1036) (i32.const 2))
    (i32.const 1024)))
