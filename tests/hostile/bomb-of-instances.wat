;; Components of which each instantiates the one before ten times, twelve deep: 4 KB that denote a million million
;; instances.
;;! compile = { address_space = 536870912, cpu_seconds = 10 }
;;! refused = "compile_too_expensive"
(component
(component $c11
(component $c10
(component $c9
(component $c8
(component $c7
(component $c6
(component $c5
(component $c4
(component $c3
(component $c2
(component $c1
(component $c0
(core module $m) (core instance (instantiate $m))
) (instance (instantiate $c0)) (instance (instantiate $c0)) (instance (instantiate $c0)) (instance (instantiate $c0)) (instance (instantiate $c0)) (instance (instantiate $c0)) (instance (instantiate $c0)) (instance (instantiate $c0)) (instance (instantiate $c0)) (instance (instantiate $c0))
) (instance (instantiate $c1)) (instance (instantiate $c1)) (instance (instantiate $c1)) (instance (instantiate $c1)) (instance (instantiate $c1)) (instance (instantiate $c1)) (instance (instantiate $c1)) (instance (instantiate $c1)) (instance (instantiate $c1)) (instance (instantiate $c1))
) (instance (instantiate $c2)) (instance (instantiate $c2)) (instance (instantiate $c2)) (instance (instantiate $c2)) (instance (instantiate $c2)) (instance (instantiate $c2)) (instance (instantiate $c2)) (instance (instantiate $c2)) (instance (instantiate $c2)) (instance (instantiate $c2))
) (instance (instantiate $c3)) (instance (instantiate $c3)) (instance (instantiate $c3)) (instance (instantiate $c3)) (instance (instantiate $c3)) (instance (instantiate $c3)) (instance (instantiate $c3)) (instance (instantiate $c3)) (instance (instantiate $c3)) (instance (instantiate $c3))
) (instance (instantiate $c4)) (instance (instantiate $c4)) (instance (instantiate $c4)) (instance (instantiate $c4)) (instance (instantiate $c4)) (instance (instantiate $c4)) (instance (instantiate $c4)) (instance (instantiate $c4)) (instance (instantiate $c4)) (instance (instantiate $c4))
) (instance (instantiate $c5)) (instance (instantiate $c5)) (instance (instantiate $c5)) (instance (instantiate $c5)) (instance (instantiate $c5)) (instance (instantiate $c5)) (instance (instantiate $c5)) (instance (instantiate $c5)) (instance (instantiate $c5)) (instance (instantiate $c5))
) (instance (instantiate $c6)) (instance (instantiate $c6)) (instance (instantiate $c6)) (instance (instantiate $c6)) (instance (instantiate $c6)) (instance (instantiate $c6)) (instance (instantiate $c6)) (instance (instantiate $c6)) (instance (instantiate $c6)) (instance (instantiate $c6))
) (instance (instantiate $c7)) (instance (instantiate $c7)) (instance (instantiate $c7)) (instance (instantiate $c7)) (instance (instantiate $c7)) (instance (instantiate $c7)) (instance (instantiate $c7)) (instance (instantiate $c7)) (instance (instantiate $c7)) (instance (instantiate $c7))
) (instance (instantiate $c8)) (instance (instantiate $c8)) (instance (instantiate $c8)) (instance (instantiate $c8)) (instance (instantiate $c8)) (instance (instantiate $c8)) (instance (instantiate $c8)) (instance (instantiate $c8)) (instance (instantiate $c8)) (instance (instantiate $c8))
) (instance (instantiate $c9)) (instance (instantiate $c9)) (instance (instantiate $c9)) (instance (instantiate $c9)) (instance (instantiate $c9)) (instance (instantiate $c9)) (instance (instantiate $c9)) (instance (instantiate $c9)) (instance (instantiate $c9)) (instance (instantiate $c9))
) (instance (instantiate $c10)) (instance (instantiate $c10)) (instance (instantiate $c10)) (instance (instantiate $c10)) (instance (instantiate $c10)) (instance (instantiate $c10)) (instance (instantiate $c10)) (instance (instantiate $c10)) (instance (instantiate $c10)) (instance (instantiate $c10))
) (instance (instantiate $c11)) (instance (instantiate $c11)) (instance (instantiate $c11)) (instance (instantiate $c11)) (instance (instantiate $c11)) (instance (instantiate $c11)) (instance (instantiate $c11)) (instance (instantiate $c11)) (instance (instantiate $c11)) (instance (instantiate $c11))
)
