;; Imports `wasi:sockets/ip-name-lookup`, which no grant of this version opens.
;;! refused = "unsupported_import"
;;! says = "sockets cannot be granted"
(component
  (import "wasi:sockets/ip-name-lookup@0.2.6" (instance (export "any" (func (result u64))))))
