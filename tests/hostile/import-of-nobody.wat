;; Imports an interface that no host offers.
;;! refused = "unknown_import"
;;! says = "wasi:keyvalue/store@0.2.0"
(component
  (import "wasi:keyvalue/store@0.2.0" (instance (export "any" (func (result u64))))))
