;; Grows a table for ever; the table stays at 20,000 elements.
;;! limits.time_ms = 100
;;! fails = "timeout timeout"
(module
  (table $table 0 funcref)
  (memory (export "memory") 1)
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (loop $again
      (drop (table.grow $table (ref.null func) (i32.const 1)))
      (if (i32.gt_u (table.size $table) (i32.const 20000)) (then (unreachable)))
      (br $again))
    (unreachable)))
