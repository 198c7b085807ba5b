;; Imports a function that belongs to no interface.
;;! refused = "unknown_import"
;;! says = "`system`, which is not an interface"
(component
  (import "system" (func (param "command" string) (result s32))))
