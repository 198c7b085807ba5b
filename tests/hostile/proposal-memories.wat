;; Declares two memories in one module.
;;! refused = "invalid_component"
;;! says = "multiple memories"
(component
  (core module (memory 1) (memory 1)))
