;; Makes a folder below a folder whose handle it made up.
;;! world = "import wasi:filesystem/types@0.2.6;"
;;! packages = '''
;;! package wasi:filesystem@0.2.6 { interface types {
;;!   enum error-code { access, would-block, already, bad-descriptor, busy, deadlock, quota, exist, file-too-large, illegal-byte-sequence,
;;!     in-progress, interrupted, invalid, io, is-directory, loop, too-many-links, message-size, name-too-long, no-device, no-entry, no-lock,
;;!     insufficient-memory, insufficient-space, not-directory, not-empty, not-recoverable, unsupported, no-tty, no-such-device, overflow,
;;!     not-permitted, pipe, read-only, invalid-seek, text-file-busy, cross-device }
;;!   resource descriptor { create-directory-at: func(path: string) -> result<_, error-code>; } } }'''
;;! fails = "trap bad_handle"
(module
  (import "wasi:filesystem/types@0.2.6" "[method]descriptor.create-directory-at" (func $make (param i32 i32 i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 0x2000) "/etc/passwd")
  (func (export "acme:probe/task@1.0.0#run") (param i32) (result i32)
    (call $make (i32.const 3) (i32.const 0x2000) (i32.const 11) (i32.const 0x3000))
    (i32.const 1024)))
