;; Imports `wasi:clocks/timezone` without a grant.
;;! refused = "missing_grant"
;;! says = "clocks = true"
(component
  (import "wasi:clocks/timezone@0.2.6" (instance (export "any" (func (result u64))))))
