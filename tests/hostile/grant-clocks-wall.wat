;; Imports `wasi:clocks/wall-clock` without a grant.
;;! refused = "missing_grant"
;;! says = "clocks = true"
(component
  (import "wasi:clocks/wall-clock@0.2.6" (instance (export "any" (func (result u64))))))
