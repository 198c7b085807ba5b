;; Uses exceptions.
;;! refused = "invalid_component"
;;! says = "exceptions"
(component
  (core module (tag (param i32))))
