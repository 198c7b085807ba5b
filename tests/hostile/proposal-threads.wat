;; Declares a shared memory, by which two attempts could communicate.
;;! refused = "invalid_component"
;;! says = "threads"
(component
  (core module (memory 1 1 shared)))
