;; Gets more artifacts as input than an attempt may hold.
;;! takes = "all: list<artifact>"
;;! input.all = ["@one", "@two", "@three", "@four", "@five", "@six"]
;;! limits.handles = 5
;;! fails = "limit too_many_handles"
;;! says = "more than 5 images, artifacts, models and writers at once"
(module
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0x4000))
  (func (export "acme:probe/task@1.0.0#run") (param i32 i32) (result i32) (i32.const 1024)))
