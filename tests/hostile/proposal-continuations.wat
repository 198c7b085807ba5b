;; Uses stack switching.
;;! refused = "invalid_component"
;;! says = "stack"
(component
  (core module (type $f (func)) (type $c (cont $f))))
