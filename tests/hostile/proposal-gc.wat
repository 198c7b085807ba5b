;; Uses objects that the host would have to collect.
;;! refused = "invalid_component"
;;! says = "gc"
(component
  (core module (type (struct (field i32)))))
