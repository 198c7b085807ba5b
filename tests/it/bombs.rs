//! A small package that unpacks to 4 GiB: the program refuses the package soon, with little memory, and before it
//! writes anything of it.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::root;

/// The unpacked size of the bomb's entry, in bytes.
const UNPACKED: u64 = 4 << 30;
/// The time limit. Measured: 0.15 s, because unpacking ends at the size limit of the entry.
const SOON: Duration = Duration::from_secs(4);
/// The most memory that the program may hold, in bytes. The program starts with 20 MB and unpacks at most 64 MiB of one
/// entry.
const LITTLE: u64 = 256 << 20;

/// Writes a package whose entry `name` is 4 GiB of zeroes.
fn bomb(file: &Path, name: &str) {
    let options = zip::write::SimpleFileOptions::default().compression_level(Some(6)).large_file(true);
    let mut zip = zip::ZipWriter::new(std::fs::File::create(file).expect("a file in a folder of ours"));
    let manifest = "name = \"bomb\"\nversion = \"1.0.0\"\ndescription = \"Unpacks to 4 GiB\"\n";
    for (entry, text) in [("plugin.toml", manifest), ("component.wasm", "x")].iter().filter(|(entry, _)| *entry != name)
    {
        zip.start_file(*entry, options).expect("an entry");
        zip.write_all(text.as_bytes()).expect("its text");
    }
    zip.start_file(name, options).expect("an entry");
    std::io::copy(&mut std::io::repeat(0).take(UNPACKED), &mut zip).expect("its zeroes");
    zip.finish().expect("its directory");
}

/// Runs the command to its end. Returns its exit code, and its peak memory in bytes.
#[expect(clippy::zombie_processes, reason = "wait4(2) waits for it")]
fn measured(command: &mut Command) -> (Option<i32>, u64) {
    let child = command.spawn().expect("the program starts");
    let process = i32::try_from(child.id()).expect("a process's number");
    let mut status = 0;
    #[expect(unsafe_code, reason = "the standard library does not report a child's resource usage")]
    // SAFETY: wait4(2) fills in the two values, and no other code waits for the child.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(
            libc::wait4(process, &raw mut status, 0, &raw mut usage),
            process,
            "{}",
            std::io::Error::last_os_error()
        );
        usage
    };
    let memory = u64::try_from(usage.ru_maxrss).expect("kilobytes") << 10;
    (libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)), memory)
}

/// The names of all files below a folder.
fn below(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
    let names = |entry: std::fs::DirEntry| {
        if entry.path().is_dir() {
            below(&entry.path())
        } else {
            vec![entry.file_name().to_string_lossy().into_owned()]
        }
    };
    entries.flat_map(names).collect()
}

#[test]
fn a_package_that_unpacks_to_four_gibibytes_is_refused_soon_and_with_little_memory() {
    let program = root().join("target/release/dovetail");
    assert!(program.is_file(), "{} is missing; run `cargo build --release -p dovetail`", program.display());
    let folder = tempfile::tempdir().expect("a folder");
    let (file, data, said) = (folder.path().join("bomb.zip"), folder.path().join("data"), folder.path().join("said"));
    for (entry, why) in [("component.wasm", "is larger than 64MiB"), ("README.md", "is larger than 1MiB")] {
        bomb(&file, entry);
        let packed = std::fs::metadata(&file).expect("the bomb").len();
        assert!((1 << 20..32 << 20).contains(&packed), "the bomb has {packed} bytes, and must compress well");
        for words in [["task", "push"], ["task", "check"]] {
            let mut command = Command::new(&program);
            command
                .arg("--data")
                .arg(&data)
                .args(words)
                .arg(&file)
                .env_clear()
                .env("HOME", folder.path())
                .env("TMPDIR", folder.path());
            command
                .stdout(std::fs::File::create(&said).expect("a file"))
                .stderr(Stdio::null())
                .args(["--output", "json"]);
            let began = Instant::now();
            let (code, memory) = measured(&mut command);
            let took = began.elapsed();
            let said = std::fs::read_to_string(&said).expect("the output is readable");
            println!("{entry}, {words:?}: {} ms, {} MB", took.as_millis(), memory >> 20);
            assert!(
                matches!(code, Some(1 | 2))
                    && said.contains("bad_package")
                    && said.contains(entry)
                    && said.contains(why),
                "{code:?}: {said}"
            );
            assert!(took < SOON, "the refusal took {took:?}");
            assert!(memory < LITTLE, "the program held {memory} bytes");
            // The registry's files are made, and nothing of the package is stored.
            let mut written = below(folder.path());
            written.retain(|name| {
                !["bomb.zip", "said", "dovetail.db", "dovetail.lock", "dovetail.waiting"].contains(&name.as_str())
            });
            assert!(written.is_empty(), "{written:?}");
        }
    }
}
