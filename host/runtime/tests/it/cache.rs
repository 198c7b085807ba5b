//! Compiled code on disk: written once, checked, bounded, and shared between processes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use dovetail_core::manifest::Grants;
use dovetail_runtime::{CompileLimits, Compiler, CompilerOptions, LoadError, SUBCOMMAND, compile_child};

use crate::refusals::compiler;
use crate::support::number_guest;

fn guest(n: u32) -> Vec<u8> {
    number_guest("", &format!("(call $ok (i32.const {n}))"))
}

fn code_in(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder.join("code")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "cwasm")).collect()
}

#[test]
fn code_is_kept_in_a_private_folder() {
    let (compiler, folder) = compiler();
    compiler.describe(&guest(1), &Grants::default()).unwrap();
    let code = code_in(folder.path());
    assert_eq!(code.len(), 1);
    let name = code[0].file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with(&dovetail_core::Digest::of(&guest(1)).hex()), "{name}");
    assert_eq!(fs::metadata(folder.path().join("code")).unwrap().permissions().mode() & 0o777, 0o700);
    let written = fs::metadata(&code[0]).unwrap().len();
    compiler.describe(&guest(1), &Grants::default()).unwrap();
    assert_eq!((code_in(folder.path()).len(), fs::metadata(&code[0]).unwrap().len()), (1, written));
}

#[test]
fn damaged_code_is_compiled_again() {
    let (compiler, folder) = compiler();
    compiler.describe(&guest(1), &Grants::default()).unwrap();
    let path = code_in(folder.path()).remove(0);
    let good = fs::read(&path).unwrap();
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    for bad in [&flipped[..], &good[..good.len() / 2], b""] {
        fs::write(&path, bad).unwrap();
        compiler.describe(&guest(1), &Grants::default()).unwrap();
        assert_eq!(fs::read(&path).unwrap().len(), good.len());
    }
}

#[test]
fn the_folder_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let options = |cache_bytes| CompilerOptions {
        cache_dir: folder.path().join("code"),
        cache_bytes,
        program: None,
        limits: CompileLimits::default(),
    };
    let roomy = Compiler::new(options(64 << 20)).unwrap();
    for n in 0..3 {
        roomy.describe(&guest(n), &Grants::default()).unwrap();
    }
    assert_eq!(code_in(folder.path()).len(), 3);
    // The cache holds two components: the next one that is compiled evicts the least recently used one.
    let two = 2 * fs::metadata(&code_in(folder.path())[0]).unwrap().len() + 100;
    let tight = Compiler::new(options(two)).unwrap();
    tight.describe(&guest(0), &Grants::default()).unwrap();
    tight.describe(&guest(3), &Grants::default()).unwrap();
    let left: Vec<_> = code_in(folder.path())
        .into_iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap()[..64].to_owned())
        .collect();
    assert_eq!(left.len(), 2);
    for n in [0, 3] {
        assert!(left.contains(&dovetail_core::Digest::of(&guest(n)).hex()), "{n}");
    }
}

#[test]
fn many_at_once_compile_once() {
    let (compiler, folder) = compiler();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| compiler.describe(&guest(1), &Grants::default()).unwrap());
        }
    });
    assert_eq!(code_in(folder.path()).len(), 1);
    let left: Vec<_> = fs::read_dir(folder.path().join("code"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "new"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// A compiler program: this test binary, which runs only the test `child` with the paths from its environment.
pub(crate) fn program(folder: &Path) -> PathBuf {
    program_after(folder, "")
}

/// The same program after some lines of shell, in which `$2` is the input file.
pub(crate) fn program_after(folder: &Path, before: &str) -> PathBuf {
    let path = folder.join("compiler");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = {SUBCOMMAND} ] || exit 64\n{before}\n\
         DOVETAIL_TEST_INPUT=\"$2\" DOVETAIL_TEST_OUTPUT=\"$3\" DOVETAIL_TEST_LIMITS=\"$4\" exec '{}' --exact \
         cache::child --ignored --nocapture\n",
        std::env::current_exe().unwrap().display()
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
#[ignore = "started by the tests below, as their compiling process"]
fn child() {
    let file = |name: &str| std::env::var_os(name).unwrap();
    let output = file("DOVETAIL_TEST_OUTPUT");
    let code = compile_child(&[file("DOVETAIL_TEST_INPUT"), output.clone(), file("DOVETAIL_TEST_LIMITS")]);
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    fs::write(Path::new(&output).parent().unwrap().join("limits"), limits).unwrap();
    // An exit code is opaque: find its number, with which the process must end.
    let code = (0..=u8::MAX).find(|number| std::process::ExitCode::from(*number) == code).unwrap();
    if code != 0 {
        #[expect(clippy::exit, clippy::disallowed_methods, reason = "a test has no exit code of its own")]
        std::process::exit(code.into());
    }
}

#[test]
fn a_child_compiles_under_its_limits() {
    let folder = tempfile::tempdir().unwrap();
    let options = CompilerOptions {
        cache_dir: folder.path().join("code"),
        cache_bytes: 64 << 20,
        program: Some(program(folder.path())),
        limits: CompileLimits::default(),
    };
    let compiler = Compiler::new(options).unwrap();
    assert!(
        compiler.describe(&guest(1), &Grants::default()).is_ok(),
        "{:?}",
        compiler.describe(&guest(1), &Grants::default())
    );
    // The child records its limits in a file.
    let limits = fs::read_to_string(folder.path().join("code/limits")).unwrap();
    let limit = |name: &str| {
        limits
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .map(|rest| rest.split_whitespace().next().unwrap().to_owned())
    };
    assert_eq!(
        (limit("Max address space").as_deref(), limit("Max cpu time").as_deref()),
        (Some("2147483648"), Some("60"))
    );
    // Another process finds the code, without a compiler.
    let options = CompilerOptions {
        cache_dir: folder.path().join("code"),
        cache_bytes: 64 << 20,
        program: Some("no such program".into()),
        limits: CompileLimits::default(),
    };
    assert!(Compiler::new(options).unwrap().describe(&guest(1), &Grants::default()).is_ok());
}

#[test]
fn a_child_that_refuses_a_component_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let options = CompilerOptions {
        cache_dir: folder.path().join("code"),
        cache_bytes: 64 << 20,
        program: Some(program(folder.path())),
        limits: CompileLimits::default(),
    };
    let bad = [0, b'a', b's', b'm', 0x0d, 0, 1, 0, 99, 99];
    match Compiler::new(options).unwrap().describe(&bad, &Grants::default()) {
        Err(LoadError::Refused(refusal)) => assert_eq!(refusal.code, "invalid_component"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_compiler_that_is_not_there_is_the_host_s_fault() {
    let folder = tempfile::tempdir().unwrap();
    let options = CompilerOptions {
        cache_dir: folder.path().join("code"),
        cache_bytes: 64 << 20,
        program: Some("no such program".into()),
        limits: CompileLimits::default(),
    };
    match Compiler::new(options).unwrap().describe(&guest(1), &Grants::default()) {
        Err(LoadError::Host(error)) => {
            assert!(error.operation.contains("no such program"), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

/// The error of a compiler that is only this shell script.
fn scripted(script: &str) -> LoadError {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("compiler");
    fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let options = CompilerOptions {
        cache_dir: folder.path().join("code"),
        cache_bytes: 64 << 20,
        program: Some(program),
        limits: CompileLimits::default(),
    };
    let error = Compiler::new(options).unwrap().describe(&guest(1), &Grants::default()).unwrap_err();
    let left: Vec<_> =
        fs::read_dir(folder.path().join("code")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["lock"]);
    error
}

#[test]
fn a_child_that_is_killed_by_its_limits_is_the_component_s_fault() {
    for (signal, words) in [("XCPU", "60 s of processor time"), ("ABRT", "2GiB of memory")] {
        match scripted(&format!("echo half > \"$3\"; kill -{signal} $$")) {
            LoadError::Refused(refusal) => {
                assert_eq!(refusal.code, "compile_too_expensive");
                assert!(refusal.message.contains(words), "{refusal:?}");
            }
            LoadError::Host(error) => panic!("{error:?}"),
        }
    }
}

#[test]
fn a_child_that_others_kill_is_not() {
    // Ctrl-C reaches the whole process group; the kernel may run out of memory; an operator may kill the child.
    for (end, transient, words) in [
        ("kill -INT $$", true, "signal 2"),
        ("kill -KILL $$", true, "signal 9"),
        ("kill -TERM $$", true, "signal 15"),
        ("kill -SEGV $$", false, "signal 11"),
        ("echo it panicked >&2; exit 101", false, "exit code 101): it panicked"),
        ("echo no json >&2; exit 65", false, "no json"),
        (
            r#"echo '{"code": "of_another_version", "message": "", "help": ""}' >&2; exit 65"#,
            false,
            "of_another_version",
        ),
    ] {
        match scripted(end) {
            LoadError::Host(error) => {
                assert_eq!(error.transient, transient, "{error:?}");
                assert!(error.operation.contains(words), "{error:?}");
            }
            LoadError::Refused(refusal) => panic!("{refusal:?}"),
        }
    }
}

#[test]
fn a_child_that_talks_without_end_is_not_listened_to() {
    // `yes` ends when its reader has closed the pipe.
    match scripted("yes 'so much to say' >&2; exit 70") {
        LoadError::Host(error) => {
            assert!(error.operation.len() <= 4096 && error.operation.contains("so much to say"), "{error:?}");
        }
        LoadError::Refused(refusal) => panic!("{refusal:?}"),
    }
}

#[test]
fn what_a_dead_process_left_is_swept() {
    let (compiler, folder) = compiler();
    for name in ["dead.new", "dead.wasm"] {
        fs::write(folder.path().join("code").join(name), "half").unwrap();
    }
    compiler.describe(&guest(1), &Grants::default()).unwrap();
    let left: Vec<_> = fs::read_dir(folder.path().join("code")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.iter().all(|path| !path.file_name().unwrap().to_str().unwrap().starts_with("dead")), "{left:?}");
}
