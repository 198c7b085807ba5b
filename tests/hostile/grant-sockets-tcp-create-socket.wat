;; Imports `wasi:sockets/tcp-create-socket`, which no grant of this version opens.
;;! refused = "unsupported_import"
;;! says = "sockets cannot be granted"
(component
  (import "wasi:sockets/tcp-create-socket@0.2.6" (instance (export "any" (func (result u64))))))
