;; Imports `wasi:random/insecure` without a grant.
;;! refused = "missing_grant"
;;! says = "random = true"
(component
  (import "wasi:random/insecure@0.2.6" (instance (export "any" (func (result u64))))))
