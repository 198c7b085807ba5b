;; A memory of more than 32 bits.
;;! refused = "invalid_component"
;;! says = "memory64"
(component
  (core module (memory i64 1)))
