;; Takes all of its 64 MiB at once and writes every page: that is allowed, and the memory is freed afterwards.
;;! returns = '{"n": 1024}'
;;! peak_memory = 67108864
(module
  (memory (export "memory") 1)
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (if (i32.eq (memory.grow (i32.const 1023)) (i32.const -1)) (then (unreachable)))
    (memory.fill (i32.const 0) (i32.const 255) (i32.const 0x4000000))
    (i32.store8 (i32.const 1024) (i32.const 0))
    (i32.store (i32.const 1032) (memory.size))
    (i32.const 1024)))
