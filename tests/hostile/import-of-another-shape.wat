;; Imports one of the host's own functions with another type.
;;! refused = "incompatible_import"
;;! says = "attempt"
(component
  (import "dovetail:task/context@0.1.0" (instance (export "attempt" (func (param "n" u32) (result string))))))
