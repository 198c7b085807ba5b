;; Imports `wasi:http/types`, which no grant of this version opens.
;;! refused = "unsupported_import"
;;! says = "http cannot be granted"
(component
  (import "wasi:http/types@0.2.6" (instance (export "any" (func (result u64))))))
