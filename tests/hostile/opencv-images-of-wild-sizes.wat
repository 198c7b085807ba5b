;; Asks for pictures with a side of 0, for pictures that need more memory than there is, and for encodings with unknown
;; formats and qualities.
;;! takes = "image: image, n: u32"
;;! gives = "n: u32"
;;! input = { image = "@640x480", n = 3 }
;;! opencv = true
;;! artifacts = 0
;;! returns = '{"n": 9}'
(module
  (import "dovetail:vision/images@0.1.0" "[method]image.resize" (func $resize (param i32 i32 i32 i32)))
  (import "dovetail:vision/images@0.1.0" "[method]image.encode" (func $encode (param i32 i32 i32 i32 i32 i32)))
  (memory (export "memory") 16)
  (data (i32.const 0x2000) "image/jpeg")
  (data (i32.const 0x2010) "image/../x")
  (global $next (mut i32) (i32.const 0x10000))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $at i32)
    (local.set $at (global.get $next))
    (global.set $next (i32.and (i32.add (i32.add (local.get $at) (local.get 3)) (i32.const 15)) (i32.const -16)))
    (local.get $at))
  (func $refused (param $image i32) (param i32 i32) (result i32)
    (call $resize (local.get $image) (local.get 1) (local.get 2) (i32.const 0x3000))
    (i32.load8_u (i32.const 0x3000)))
  (func $unwritten (param $image i32) (param i32 i32 i32 i32) (result i32)
    (call $encode (local.get $image) (local.get 1) (local.get 2) (local.get 3) (local.get 4) (i32.const 0x3000))
    (i32.load8_u (i32.const 0x3000)))
  (func (export "acme:probe/task@1.0.0#run") (param $image i32) (param $n i32) (result i32)
    (i32.store (i32.const 1032)
      (i32.add (call $refused (local.get $image) (i32.const 0) (i32.const 0))
      (i32.add (call $refused (local.get $image) (i32.const 0) (i32.const 10))
      (i32.add (call $refused (local.get $image) (i32.const -1) (i32.const -1))
      (i32.add (call $refused (local.get $image) (i32.const 16385) (i32.const 1))
      (i32.add (call $refused (local.get $image) (i32.const 1) (i32.const 16384))
      (i32.add (call $unwritten (local.get $image) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
      (i32.add (call $unwritten (local.get $image) (i32.const 0x2010) (i32.const 10) (i32.const 0) (i32.const 0))
      (i32.add (call $unwritten (local.get $image) (i32.const 0x2000) (i32.const 10) (i32.const 1) (i32.const 0))
      (i32.add (call $unwritten (local.get $image) (i32.const 0x2000) (i32.const 10) (i32.const 1) (i32.const 101))
        (call $unwritten (local.get $image) (i32.const 0x2000) (i32.const 10) (i32.const 1) (i32.const 255))))))))))))
    (i32.const 1024)))
