//! The window's script: one file for each operation, concatenated when the crate is compiled. Redis runs each call of
//! the script atomically.
//!
//! The order matters. A file can use the declarations of the files before it. `changes.lua` begins the loop over the
//! changes of a call, and `refused.lua` ends it; the branches of that loop stand between the two.

/// The script without its first line, which holds the flags.
pub(super) const SCRIPT: &str = concat!(
    include_str!("window/prelude.lua"),
    include_str!("window/peek.lua"),
    include_str!("window/knows.lua"),
    include_str!("window/held.lua"),
    include_str!("window/beat.lua"),
    include_str!("window/belongs.lua"),
    include_str!("window/workers.lua"),
    include_str!("window/renew.lua"),
    include_str!("window/call.lua"),
    include_str!("window/changes.lua"),
    include_str!("window/finish.lua"),
    include_str!("window/open.lua"),
    include_str!("window/close.lua"),
    include_str!("window/cancel.lua"),
    include_str!("window/give_back.lua"),
    include_str!("window/refused.lua"),
    include_str!("window/requeue.lua"),
    include_str!("window/claim.lua"),
    include_str!("window/reply.lua"),
);
