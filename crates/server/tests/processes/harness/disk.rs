//! Holds: a disk that fails when a test says so, below the database of one server.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::Environment;

/// What it does not do.
#[derive(Clone, Copy, Debug)]
pub enum DiskFault {
    /// It has no room: writing fails.
    Full,
    /// What was written does not stay.
    Fsync,
    /// What was written cannot be read.
    Read,
}

impl DiskFault {
    const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Fsync => "fsync",
            Self::Read => "read",
        }
    }
}

/// The disk.
pub struct Disk {
    library: PathBuf,
    faults: PathBuf,
    database: PathBuf,
}

impl Disk {
    /// Below every file whose path begins with `database`.
    pub(super) fn new(folder: &Path, database: &Path) -> Self {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/processes/harness/disk.c");
        let (library, faults) = (folder.join("disk.so"), folder.join("faults"));
        std::fs::create_dir_all(&faults).unwrap();
        let mut compiled = Command::new("cc");
        compiled.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).arg("-ldl");
        let ran = compiled.output().expect("there is a C compiler, as for the build");
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        Self { library, faults, database: database.to_owned() }
    }

    /// What a server on it is started with.
    pub(super) fn environment(&self) -> Environment {
        let text = |path: &Path| path.display().to_string();
        vec![
            ("LD_PRELOAD", text(&self.library)),
            ("BATCHIN_TEST_DISK_FAULTS", text(&self.faults)),
            ("BATCHIN_TEST_DISK_DATABASE", text(&self.database)),
        ]
    }

    /// From now on it fails.
    pub fn fail(&self, fault: DiskFault) {
        std::fs::write(self.faults.join(fault.name()), "").unwrap();
    }

    /// It works again.
    pub fn mend(&self, fault: DiskFault) {
        std::fs::remove_file(self.faults.join(fault.name())).unwrap();
    }
}
