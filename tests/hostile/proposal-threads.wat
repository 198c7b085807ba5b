;; Shared memory, by which two attempts could talk.
;;! refused = "invalid_component"
;;! says = "threads"
(component
  (core module (memory 1 1 shared)))
