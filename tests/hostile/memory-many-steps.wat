;; Grows its memory page by page up to the limit and writes each page. The next page is refused, and the guest aborts as
;; an allocator does.
;;! fails = "limit out_of_memory"
;;! says = "more than its 64MiB of memory (it asked for 65536 bytes more): raise `memory`"
;;! peak_memory = 67108864
(module
  (memory (export "memory") 1)
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (local $last i32)
    (loop $again
      (local.set $last (memory.grow (i32.const 1)))
      (if (i32.eq (local.get $last) (i32.const -1)) (then (unreachable)))
      (i32.store8 (i32.mul (local.get $last) (i32.const 65536)) (i32.const 1))
      (br $again))
    (unreachable)))
