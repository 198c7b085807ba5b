;; Declares a memory with pages of one byte.
;;! refused = "invalid_component"
;;! says = "page size"
(component
  (core module (memory 1 (pagesize 1))))
