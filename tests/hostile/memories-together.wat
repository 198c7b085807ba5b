;; Eight memories of 16 MiB: each is within the limit, and together they exceed it.
;;! fails = "limit out_of_memory"
;;! says = "more than its 64MiB of memory"
(component
  ;; The interface in its exported form, in which its types have names.
  (component $interface
    (type $details (list (tuple string string)))
    (type $a
      (record (field "code" string) (field "message" string) (field "retryable" bool) (field "retry-after-ms" (option u64)) (field "details" $details)))
    (import "failure" (type $failure (eq $a)))
    (type $b (variant (case "invalid-input" $failure) (case "cancelled") (case "unavailable" $failure) (case "failed" $failure)))
    (import "task-error" (type $task-error (eq $b)))
    (type $c (record (field "n" u32)))
    (import "input" (type $input (eq $c)))
    (import "output" (type $output (eq $c)))
    (import "run" (func $run (param "input" $input) (result (result $output (error $task-error)))))
    (export $failure-out "failure" (type $a))
    (type $d (variant (case "invalid-input" $failure-out) (case "cancelled") (case "unavailable" $failure-out) (case "failed" $failure-out)))
    (export $error-out "task-error" (type $d))
    (export $input-out "input" (type $c))
    (export $output-out "output" (type $c))
    (export "run" (func $run) (func (param "input" $input-out) (result (result $output-out (error $error-out))))))
  (core module $memory (memory 256))
  (core instance (instantiate $memory))
  (core instance (instantiate $memory))
  (core instance (instantiate $memory))
  (core instance (instantiate $memory))
  (core instance (instantiate $memory))
  (core instance (instantiate $memory))
  (core instance (instantiate $memory))
  (core module $module
    (memory (export "memory") 256)
    (func (export "run") (param i32) (result i32) (i32.const 1024)))
  (core instance $instance (instantiate $module))
  (type $details (list (tuple string string)))
  (type $failure
    (record (field "code" string) (field "message" string) (field "retryable" bool) (field "retry-after-ms" (option u64)) (field "details" $details)))
  (type $task-error (variant (case "invalid-input" $failure) (case "cancelled") (case "unavailable" $failure) (case "failed" $failure)))
  (type $input (record (field "n" u32)))
  (type $output (record (field "n" u32)))
  (func $run (param "input" $input) (result (result $output (error $task-error)))
    (canon lift (core func $instance "run") (memory $instance "memory")))
  (instance $task
    (instantiate $interface
      (with "failure" (type $failure)) (with "task-error" (type $task-error)) (with "input" (type $input)) (with "output" (type $output))
      (with "run" (func $run))))
  (export "acme:probe/task@1.0.0" (instance $task)))
