//! Components made to cost the compiler much time, memory or disk: each limit of the compiling child is tested from
//! both sides, with the same component.
//!
//! The default limits (2 GiB, 60 s, 300 s) are too high for a test, so these limits are lower.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use dovetail_core::executor::HostError;
use dovetail_core::manifest::Grants;
use dovetail_runtime::{CompileLimits, Compiler, CompilerOptions, Description, LoadError, Refusal};

use crate::cache::{program, program_after};
use crate::support::{NUMBER, component, core, number_guest};

/// A compiler with its own folder, whose child works within `limits`.
struct Forge {
    compiler: Compiler,
    folder: tempfile::TempDir,
}

impl Forge {
    fn new(limits: CompileLimits) -> Self {
        Self::with(limits, program)
    }

    fn with(limits: CompileLimits, program: impl Fn(&Path) -> PathBuf) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = Some(program(folder.path()));
        let options = CompilerOptions { cache_dir: folder.path().join("code"), cache_bytes: 64 << 20, program, limits };
        Self { compiler: Compiler::new(options).unwrap(), folder }
    }

    #[track_caller]
    fn compiles(&self, component: &[u8]) -> Description {
        self.compiler.describe(component, &Grants::default()).unwrap()
    }

    /// Checks that the component is refused and leaves no files, and that a good component compiles right afterwards.
    #[track_caller]
    fn refuses(&self, component: &[u8]) -> Refusal {
        let before = self.files();
        let refusal = match self.compiler.describe(component, &Grants::default()) {
            Err(LoadError::Refused(refusal)) => refusal,
            other => panic!("not refused: {other:?}"),
        };
        assert_eq!(self.files(), before, "something is left of it");
        self.compiles(&number_guest("", "(call $ok (i32.const 4711))"));
        refusal
    }

    #[track_caller]
    fn fails(&self, component: &[u8]) -> HostError {
        let before = self.files();
        let error = match self.compiler.describe(component, &Grants::default()) {
            Err(LoadError::Host(error)) => error,
            other => panic!("not the host's failure: {other:?}"),
        };
        assert_eq!(self.files(), before, "something is left of it");
        error
    }

    /// The files in the folder of compiled code, except the lock and the file that the child of these tests writes.
    fn files(&self) -> Vec<String> {
        let names = fs::read_dir(self.folder.path().join("code"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| !matches!(name.as_str(), "lock" | "limits")).collect();
        names.sort();
        names
    }
}

/// A guest with `functions` functions in which 100 nested loops carry 1,000 numbers: from a text of 12 KB the compiler
/// must keep 100,000 values apart. One function takes more than a second of processor time and 200 MB; three times as
/// many loops take more than a minute.
fn nest(functions: usize) -> Vec<u8> {
    const LOOPS: usize = 100;
    const LOCALS: usize = 1000;
    let mut function = format!("(param i32) (local{})", " i32".repeat(LOCALS));
    for n in 0..LOOPS {
        write!(function, "(loop $l{n} ").unwrap();
    }
    for n in 1..=LOCALS {
        write!(function, "(local.set {n} (i32.add (local.get {n}) (local.get {})))", n - 1).unwrap();
    }
    for n in (0..LOOPS).rev() {
        write!(function, "(br_if $l{n} (i32.eqz (local.get {LOCALS}))))").unwrap();
    }
    let functions: String = (0..functions).map(|n| format!("(func (export \"bomb{n}\") {function})")).collect();
    number_guest(&functions, "(call $ok (i32.const 1))")
}

#[test]
fn a_costly_component_within_the_limits() {
    let forge = Forge::new(CompileLimits::default());
    assert!(forge.compiles(&nest(1)).code_bytes > 10_000);
    let files = forge.files();
    assert!(
        files.len() == 2 && files.iter().all(|name| name.ends_with(".cwasm") || name.ends_with(".cwasm.sha256")),
        "{files:?}"
    );
}

#[test]
fn a_component_that_takes_more_memory_than_there_is() {
    // Enough for the other guests of these tests, and less than the component needs that compiles in the test above.
    let forge = Forge::new(CompileLimits { address_space: 160 << 20, ..CompileLimits::default() });
    let refusal = forge.refuses(&nest(1));
    assert_eq!(refusal.code, "compile_too_expensive");
    assert!(refusal.message.contains("160MiB of memory"), "{refusal:?}");
    assert!(refusal.help.contains("large functions"), "{refusal:?}");
}

#[test]
fn a_component_that_takes_more_processor_time_than_there_is() {
    let forge = Forge::new(CompileLimits { cpu_seconds: 1, ..CompileLimits::default() });
    let refusal = forge.refuses(&nest(8));
    assert_eq!(refusal.code, "compile_too_expensive");
    assert!(refusal.message.contains("1 s of processor time"), "{refusal:?}");
}

#[test]
fn a_compiler_that_waits_for_ever() {
    // The input is a pipe without a writer: the compiler uses no processor time, and only the wall time ends it.
    let hanging = |folder: &Path| program_after(folder, "rm \"$2\" && mkfifo \"$2\"");
    let forge = Forge::with(CompileLimits { wall_seconds: 1, ..CompileLimits::default() }, hanging);
    let error = forge.fails(&number_guest("", "(call $ok (i32.const 1))"));
    assert!(error.transient && error.operation.contains("no end after 1 s"), "{error:?}");
}

#[test]
fn a_compiler_that_waits_less_than_its_limit() {
    let slow = |folder: &Path| program_after(folder, "sleep 1");
    let forge = Forge::with(CompileLimits { wall_seconds: 600, ..CompileLimits::default() }, slow);
    forge.compiles(&number_guest("", "(call $ok (i32.const 1))"));
}

/// A few hundred bytes of text with 12 MiB between the first and the last byte of its data; the compiled code contains
/// the whole image of the memory.
fn hollow() -> Vec<u8> {
    let module = core(r#"(data (i32.const 0) "first") (data (i32.const 12582912) "last")"#, "(call $ok (i32.const 1))");
    component(NUMBER, &module.replace("(memory (export \"memory\") 2)", "(memory (export \"memory\") 200)"))
}

#[test]
fn code_within_its_limit_and_over_it() {
    assert!(Forge::new(CompileLimits::default()).compiles(&hollow()).code_bytes > 12 << 20);
    let tight = CompileLimits { code: 1 << 20, ..CompileLimits::default() };
    let refusal = Forge::new(tight).refuses(&hollow());
    assert_eq!(refusal.code, "compile_too_expensive");
    assert!(refusal.message.contains("at most 1MiB are taken"), "{refusal:?}");
    // The limit also applies if the host compiles in its own process.
    let folder = tempfile::tempdir().unwrap();
    let options =
        CompilerOptions { cache_dir: folder.path().join("code"), cache_bytes: 64 << 20, program: None, limits: tight };
    match Compiler::new(options).unwrap().describe(&hollow(), &Grants::default()) {
        Err(LoadError::Refused(same)) => assert_eq!(same, refusal),
        other => panic!("{other:?}"),
    }
}

/// Nested components around one module: each instantiates the previous one `width` times, `depth` deep.
fn matryoshka(width: usize, depth: usize) -> Vec<u8> {
    let mut text = "(core module $m) (core instance (instantiate $m))".to_owned();
    for n in 0..depth {
        text = format!("(component $c{n} {text}) {}", format!("(instance (instantiate $c{n}))").repeat(width));
    }
    wat::parse_str(format!("(component {text})")).unwrap()
}

#[test]
fn components_in_components() {
    let forge = Forge::new(CompileLimits { address_space: 192 << 20, cpu_seconds: 10, ..CompileLimits::default() });
    // A small component is compiled, and refused only because it is no task.
    assert_eq!(
        forge.compiler.describe(&matryoshka(2, 3), &Grants::default()).map(|_| ()).unwrap_err().to_string(),
        "it exports no interface with a function `run`"
    );
    // A thousand thousand million instances in 2 KB.
    assert_eq!(forge.refuses(&matryoshka(10, 12)).code, "compile_too_expensive");
}

/// The parts of the test below that must not share their process with other tests.
#[test]
#[ignore = "started by the test below, in a process of its own"]
fn alone() {
    let peak = || {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    };
    let (memory, time, code) = (nest(1), nest(8), hollow());
    // This program itself takes 70 MB of the address space, because it is linked with OpenCV.
    let limits = CompileLimits { address_space: 192 << 20, cpu_seconds: 1, wall_seconds: 300, code: 1 << 20 };
    let forge = Forge::new(limits);
    forge.compiles(&number_guest("", "(call $ok (i32.const 1))"));
    let before = peak();
    for bomb in [&memory, &time, &code] {
        forge.refuses(bomb);
    }
    let grown = peak() - before;
    // Compiling `memory` in this process takes 200 MB, as the test without limits shows.
    assert!(grown < 32 << 20, "the parent grew by {grown} bytes");
    let folder = tempfile::tempdir().unwrap();
    let options = CompilerOptions {
        cache_dir: folder.path().join("code"),
        cache_bytes: 64 << 20,
        program: None,
        limits: CompileLimits::default(),
    };
    Compiler::new(options).unwrap().describe(&memory, &Grants::default()).unwrap();
    assert!(peak() - before > 64 << 20, "without a child it costs nothing either: this test shows nothing");
}

#[test]
fn a_bomb_costs_the_parent_nothing() {
    let alone = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "bombs::alone", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    assert!(alone.status.success(), "{}", String::from_utf8_lossy(&alone.stderr));
    assert!(String::from_utf8_lossy(&alone.stdout).contains("1 passed"), "{alone:?}");
}
