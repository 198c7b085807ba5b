;; Imports `wasi:random/random` without a grant.
;;! refused = "missing_grant"
;;! says = "random = true"
(component
  (import "wasi:random/random@0.2.6" (instance (export "any" (func (result u64))))))
