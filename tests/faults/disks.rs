//! Servers whose disk is full: they refuse writes, keep everything that they have accepted, and continue when there is
//! room.
//!
//! These tests need Linux and the superuser: the disk is a small tmpfs of its own.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::fleet::{Fleet, LONG, Setup, wait};
use crate::servers::What;
use crate::storm::Load;

/// The remedy if the disk cannot be mounted.
const NEEDS: &str = "the test needs a disk of its own: run it as root on Linux, in a container with the capability \
                     SYS_ADMIN; or leave these tests out explicitly with `-- --skip disks`";

/// A small disk.
pub(crate) struct Disk {
    folder: PathBuf,
}

impl Disk {
    pub(crate) fn new(folder: &Path, mebibytes: u32) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let out = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"])
            .arg(folder)
            .output()
            .unwrap();
        assert!(out.status.success(), "{}; {NEEDS}", String::from_utf8_lossy(&out.stderr).trim());
        Self { folder: folder.to_owned() }
    }

    fn filler(&self) -> PathBuf {
        self.folder.join("filler")
    }

    /// Fills the disk to its last byte.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.filler()).unwrap();
        for size in [1 << 20, 4096, 1] {
            let piece = vec![0; size];
            while file.write_all(&piece).is_ok() {}
        }
    }

    fn make_room(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The disk's server has ended by now.
        drop(Command::new("umount").arg("--lazy").arg(&self.folder).status());
    }
}

/// Fills the server's disk twice for some seconds under load. A worker's log must contain the server's answer (`says`).
fn survives(what: What, setup: Setup, says: &str) {
    let mut fleet = Fleet::new(Setup { small: Some(what), ..setup });
    fleet.workers(2);
    let load = Load::start(&fleet.user, Duration::from_millis(60));
    for _ in 0..2 {
        fleet.progress(10);
        let disk = fleet.disk.as_ref().unwrap();
        let before = fleet.said(says);
        disk.fill();
        wait("a worker is refused", LONG, || {
            // A server may still have room in its own files, and frees space: fill the disk again.
            disk.fill();
            fleet.said(says) > before
        });
        std::thread::sleep(Duration::from_secs(3));
        disk.make_room();
    }
    fleet.progress(10);
    load.stop();
    assert_eq!(fleet.all_work(), Vec::<String>::new());
    fleet.holds(20);
}

const PLAIN: Setup = Setup {
    mongodb: false,
    s3: false,
    proxies: false,
    apart: false,
    small: None,
    redis_clock: false,
    lease: 2,
    slots: 4,
};

#[test]
fn redis_whose_disk_is_full() {
    survives(What::Redis, PLAIN, "MISCONF");
}

#[test]
fn mongodb_whose_disk_is_full() {
    survives(What::MongoDb, Setup { mongodb: true, ..PLAIN }, "disk is full");
}

#[test]
fn minio_whose_disk_is_full() {
    survives(What::S3, Setup { mongodb: true, s3: true, apart: true, ..PLAIN }, "XMinioStorageFull");
}
