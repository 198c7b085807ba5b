;; Declares a memory with 64-bit addresses.
;;! refused = "invalid_component"
;;! says = "memory64"
(component
  (core module (memory i64 1)))
