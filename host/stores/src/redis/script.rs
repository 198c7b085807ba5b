//! The window's script: one file an operation, put together when the crate is compiled. Redis runs it as a whole, so
//! that each call is atomic.
//!
//! The order matters: what is declared in one file is used in those after it, and the branches of the loop over a
//! call's changes stand between `changes.lua`, which begins the loop, and `refused.lua`, which ends it.

/// As it is sent to Redis, but for its first line, which tells the flags.
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
