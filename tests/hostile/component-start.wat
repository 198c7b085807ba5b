;; A start function of the component itself, not of a module.
;;! refused = "invalid_component"
;;! says = "support for component model `value`s is not enabled"
(component
  (core module $m (func (export "begin")))
  (core instance $i (instantiate $m))
  (func $begin (canon lift (core func $i "begin")))
  (start $begin))
