;; Imports an interface that this host does not offer.
;;! refused = "unknown_import"
;;! says = "wasi:keyvalue/store@0.2.0"
(component
  (import "wasi:keyvalue/store@0.2.0" (instance (export "any" (func (result u64))))))
