;; Returns two thousand lists of a million numbers, all at one address: 2 KB that denote 2 GB.
;;! gives = "items: list<list<u8>>"
;;! fails = "limit too_much_data"
(module
  (memory (export "memory") 20)
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (local $i i32)
    (loop $again
      (i32.store offset=0x2000 (i32.mul (local.get $i) (i32.const 8)) (i32.const 0x10000))
      (i32.store offset=0x2004 (i32.mul (local.get $i) (i32.const 8)) (i32.const 1000000))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $again (i32.lt_u (local.get $i) (i32.const 2000))))
    (i32.store (i32.const 1032) (i32.const 0x2000))
    (i32.store (i32.const 1036) (i32.const 2000))
    (i32.const 1024)))
