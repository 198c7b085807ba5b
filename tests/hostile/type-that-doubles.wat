;; Fifteen records, each with two lists of the record before: half a kilobyte that denotes 98,302 parts.
;;! types = '''
;;! record r0 { a: u8, b: u8 }
;;! record r1 { a: list<r0>, b: list<r0> }
;;! record r2 { a: list<r1>, b: list<r1> }
;;! record r3 { a: list<r2>, b: list<r2> }
;;! record r4 { a: list<r3>, b: list<r3> }
;;! record r5 { a: list<r4>, b: list<r4> }
;;! record r6 { a: list<r5>, b: list<r5> }
;;! record r7 { a: list<r6>, b: list<r6> }
;;! record r8 { a: list<r7>, b: list<r7> }
;;! record r9 { a: list<r8>, b: list<r8> }
;;! record r10 { a: list<r9>, b: list<r9> }
;;! record r11 { a: list<r10>, b: list<r10> }
;;! record r12 { a: list<r11>, b: list<r11> }
;;! record r13 { a: list<r12>, b: list<r12> }
;;! record r14 { a: list<r13>, b: list<r13> }
;;! '''
;;! takes = "bomb: list<r14>"
;;! refused = "type_too_large"
;;! says = "10000"
(module
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0x4000))
  (func (export "acme:probe/task@1.0.0#run") (param i32 i32) (result i32) (i32.const 1024)))
