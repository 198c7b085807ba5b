;; Stacks that are switched.
;;! refused = "invalid_component"
;;! says = "stack"
(component
  (core module (type $f (func)) (type $c (cont $f))))
