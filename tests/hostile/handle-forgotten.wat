;; Does nothing with the handle that it was given: this is no fault, and the host frees the handle.
;;! takes = "image: image, n: u32"
;;! gives = "images: list<image>"
;;! input = { image = "@640x480", n = 3 }
;;! returns = '{"images": []}'
(module
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0x4000))
  (func (export "acme:probe/task@1.0.0#run") (param $image i32) (param $n i32) (result i32)
    (i32.const 1024)))
