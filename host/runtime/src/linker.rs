//! The imports that a component may have, and the implementation of each: the host's own interfaces, the inert part of
//! WASI, and the interfaces behind grants.

use dovetail_core::manifest::Grants;
use serde::Serialize;
use wasmtime::Engine;
use wasmtime::component::{HasData, HasSelf, Linker, ResourceTable};
use wasmtime_wasi::cli::{WasiCli, WasiCliView};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::{cli, clocks, filesystem::preopens, random, sync::filesystem, sync::io};

use crate::bindings::Services;
use crate::refusal::Refusal;
use crate::state::State;

/// What an import requires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GrantClass {
    /// One of the host's own interfaces: `dovetail:task`, `dovetail:vision`.
    Host,
    /// A WASI interface that can do nothing: an empty environment, streams that become log lines, no preopened folder,
    /// a fixed seed.
    Inert,
    /// A WASI interface that reaches something. It requires the grant of this name in `plugin.toml`.
    Needs(&'static str),
    /// The host does not offer it.
    Unknown,
}

/// The class of the import `name` (such as `wasi:clocks/wall-clock@0.2.6`).
pub(crate) fn grant_class(name: &str) -> GrantClass {
    let unversioned = name.split('@').next().unwrap_or(name);
    let Some((package, interface)) = unversioned.split_once('/') else {
        return GrantClass::Unknown;
    };
    match (package, interface) {
        ("dovetail:task", "types" | "context" | "control" | "logging" | "artifacts")
        | ("dovetail:vision", "images" | "faces") => GrantClass::Host,
        (
            "wasi:cli",
            "environment" | "exit" | "stdin" | "stdout" | "stderr" | "terminal-input" | "terminal-output"
            | "terminal-stdin" | "terminal-stdout" | "terminal-stderr",
        )
        | ("wasi:io", "error" | "poll" | "streams")
        | ("wasi:filesystem", "types" | "preopens")
        | ("wasi:random", "insecure-seed") => GrantClass::Inert,
        ("wasi:clocks", _) => GrantClass::Needs("clocks"),
        ("wasi:random", _) => GrantClass::Needs("random"),
        ("wasi:sockets", _) => GrantClass::Needs("sockets"),
        ("wasi:http", _) => GrantClass::Needs("http"),
        _ => GrantClass::Unknown,
    }
}

/// Checks whether the import may be linked with these grants.
///
/// # Errors
/// `unsupported_import`, `unknown_import` or `missing_grant`.
pub(crate) fn check_import(name: &str, grants: &Grants) -> Result<GrantClass, Refusal> {
    let class = grant_class(name);
    let granted = match class {
        GrantClass::Host | GrantClass::Inert => true,
        GrantClass::Needs("clocks") => grants.clocks,
        GrantClass::Needs("random") => grants.random,
        GrantClass::Needs(what) => {
            return Err(Refusal::new(
                "unsupported_import",
                format!("it imports `{name}`: {what} cannot be granted by this version of the host"),
                format!("build the task without {what}; data enters a task through its input"),
            ));
        }
        GrantClass::Unknown => {
            return Err(Refusal::new(
                "unknown_import",
                format!("it imports `{name}`, which this host does not offer"),
                "a task may import dovetail:task, dovetail:vision and WASI 0.2; a newer interface needs a newer \
                 dovetail",
            ));
        }
    };
    match (granted, &class) {
        (false, GrantClass::Needs(grant)) => Err(Refusal::new(
            "missing_grant",
            format!("it imports `{name}`, which needs the grant `{grant}`"),
            format!("add `{grant} = true` under `[grants]` in plugin.toml, or build the task without it"),
        )),
        _ => Ok(class),
    }
}

struct Table;

impl HasData for Table {
    type Data<'a> = &'a mut ResourceTable;
}

/// Links everything that these grants allow. `p2::add_to_linker_sync` is not used: it would give clocks, random and
/// sockets to every task.
pub(crate) fn linker(engine: &Engine, grants: &Grants) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    let l = &mut linker;
    let own: fn(&mut State) -> &mut State = |state| state;
    Services::add_to_linker::<_, HasSelf<_>>(l, own)?;
    // No guest ever holds a handle of these resources. Their functions exist for imports and cannot be called.
    wasmtime_wasi_io::bindings::wasi::io::error::add_to_linker::<_, Table>(l, State::wasi_table)?;
    cli::terminal_input::add_to_linker::<_, WasiCli>(l, State::cli)?;
    cli::terminal_output::add_to_linker::<_, WasiCli>(l, State::cli)?;
    filesystem::types::add_to_linker::<_, WasiFilesystem>(l, State::filesystem)?;
    // The interfaces below are implemented by `State`, so that their calls are counted.
    io::poll::add_to_linker::<_, HasSelf<_>>(l, own)?;
    io::streams::add_to_linker::<_, HasSelf<_>>(l, own)?;
    cli::environment::add_to_linker::<_, HasSelf<_>>(l, own)?;
    cli::exit::add_to_linker::<_, HasSelf<_>>(l, own)?;
    cli::stdin::add_to_linker::<_, HasSelf<_>>(l, own)?;
    // Written lines go to the attempt's log.
    cli::stdout::add_to_linker::<_, HasSelf<_>>(l, own)?;
    cli::stderr::add_to_linker::<_, HasSelf<_>>(l, own)?;
    cli::terminal_stdin::add_to_linker::<_, HasSelf<_>>(l, own)?;
    cli::terminal_stdout::add_to_linker::<_, HasSelf<_>>(l, own)?;
    cli::terminal_stderr::add_to_linker::<_, HasSelf<_>>(l, own)?;
    preopens::add_to_linker::<_, HasSelf<_>>(l, own)?;
    random::insecure_seed::add_to_linker::<_, HasSelf<_>>(l, own)?;
    if grants.clocks {
        clocks::wall_clock::add_to_linker::<_, HasSelf<_>>(l, own)?;
        // `State` implements the clock, so that a sleeping guest can be stopped.
        clocks::monotonic_clock::add_to_linker::<_, HasSelf<_>>(l, own)?;
    }
    if grants.random {
        random::random::add_to_linker::<_, HasSelf<_>>(l, own)?;
        random::insecure::add_to_linker::<_, HasSelf<_>>(l, own)?;
    }
    Ok(linker)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_fall_into_classes() {
        assert_eq!(grant_class("dovetail:task/context@0.1.0"), GrantClass::Host);
        assert_eq!(grant_class("wasi:cli/stdout@0.2.6"), GrantClass::Inert);
        assert_eq!(grant_class("wasi:random/insecure-seed@0.2.0"), GrantClass::Inert);
        assert_eq!(grant_class("wasi:clocks/wall-clock@0.2.6"), GrantClass::Needs("clocks"));
        assert_eq!(grant_class("wasi:random/random@0.2.6"), GrantClass::Needs("random"));
        assert_eq!(grant_class("wasi:http/outgoing-handler@0.2.6"), GrantClass::Needs("http"));
        assert_eq!(grant_class("acme:database/query"), GrantClass::Unknown);
        assert_eq!(grant_class("run"), GrantClass::Unknown);
    }

    #[test]
    fn a_grant_opens_its_own_imports_only() {
        let clocks = Grants { clocks: true, ..Grants::default() };
        assert!(check_import("wasi:clocks/wall-clock@0.2.6", &clocks).is_ok());
        let refusal = check_import("wasi:random/random@0.2.6", &clocks).unwrap_err();
        assert_eq!(refusal.code, "missing_grant");
        assert!(
            refusal.message.contains("wasi:random/random@0.2.6") && refusal.help.contains("random = true"),
            "{refusal:?}"
        );
    }
}
