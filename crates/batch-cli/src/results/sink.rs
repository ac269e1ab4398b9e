//! Holds: where result lines go: to a file or a stream, as they come or in the order of the input.
//!
//! In order, a line that is early waits in a file; memory has eight bytes for each task.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::answer;

/// What is written for a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// The line itself.
    Json,
    /// The answer, for a person.
    Text,
}

/// Where it is written.
pub(crate) enum Target<'a> {
    File(OutFile),
    Stream(&'a mut dyn Write),
}

/// A file that is written beside its place and moved there when it is whole.
#[derive(Debug)]
pub(crate) struct OutFile {
    path: PathBuf,
    /// None for what is no file, such as a pipe: it is written as it is.
    part: Option<PathBuf>,
    file: File,
    may_replace: bool,
    is_whole: bool,
}

/// Why results cannot go to a file.
#[derive(Debug, thiserror::Error)]
pub enum OutError {
    /// Something is there, and nobody has said that it may go.
    #[error("it is there already; --force replaces it")]
    Exists,
    /// Another command writes to it.
    #[error("another command is writing to it")]
    InUse,
    /// The operating system's words.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl OutFile {
    /// Opens it; what was left of an earlier run that broke off is begun anew, what is whole is only replaced when it
    /// `may` be.
    pub(crate) fn open(path: &Path, may_replace: bool) -> Result<Self, OutError> {
        let (path, is_whole) = (path.to_owned(), false);
        match fs::metadata(&path) {
            Ok(meta) if meta.is_dir() => return Err(io::Error::from(io::ErrorKind::IsADirectory).into()),
            Ok(meta) if !meta.is_file() => {
                let file = File::options().write(true).open(&path)?;
                return Ok(Self { path, part: None, file, may_replace, is_whole });
            }
            Ok(_) if !may_replace => return Err(OutError::Exists),
            Ok(_) | Err(_) => {}
        }
        let part = PathBuf::from(format!("{}.part", path.display()));
        let file = File::options().write(true).create(true).truncate(false).open(&part)?;
        match file.try_lock() {
            Ok(()) => file.set_len(0)?,
            Err(fs::TryLockError::WouldBlock) => return Err(OutError::InUse),
            Err(fs::TryLockError::Error(cause)) => return Err(cause.into()),
        }
        Ok(Self { path, part: Some(part), file, may_replace, is_whole })
    }

    /// It has everything: it gets its name.
    fn finish(mut self) -> io::Result<()> {
        let Some(part) = self.part.clone() else { return Ok(()) };
        self.file.sync_all()?;
        self.is_whole = true;
        if !self.may_replace && self.path.exists() {
            let what = format!("{} has come into being meanwhile; they are in {}", self.path.display(), part.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
        }
        fs::rename(part, &self.path)
    }
}

/// Without a result there is nothing to leave behind.
impl Drop for OutFile {
    fn drop(&mut self) {
        let is_empty = self.file.metadata().is_ok_and(|meta| meta.len() == 0);
        if let Some(part) = self.part.as_ref().filter(|_| is_empty && !self.is_whole) {
            // It is only clutter if it stays.
            let _ = fs::remove_file(part);
        }
    }
}

/// Takes result lines, each once.
pub(crate) struct Sink<'a> {
    open: Open<'a>,
    form: Form,
    /// Written with the next [`Sink::flush`].
    ready: Vec<u8>,
    waiting: Option<Waiting>,
}

enum Open<'a> {
    File(OutFile),
    Stream(&'a mut dyn Write),
}

/// Lines that came before their turn.
struct Waiting {
    file: File,
    end: u64,
    /// One more than where the line of each index begins; 0 when it is not here.
    places: Vec<u64>,
    next: usize,
}

impl<'a> Sink<'a> {
    /// `folder` is for lines that wait for their turn.
    pub(crate) fn new(target: Target<'a>, form: Form, is_ordered: bool, folder: &Path) -> io::Result<Self> {
        let open = match target {
            Target::Stream(out) => Open::Stream(out),
            Target::File(file) => Open::File(file),
        };
        let waiting = is_ordered.then(|| tempfile::tempfile_in(folder)).transpose()?;
        let waiting = waiting.map(|file| Waiting { file, end: 0, places: Vec::new(), next: 0 });
        Ok(Self { open, form, ready: Vec::new(), waiting })
    }

    /// A line without its newline.
    pub(crate) fn take(&mut self, index: u64, line: &[u8]) -> io::Result<()> {
        let Some(mut waiting) = self.waiting.take() else {
            self.write(line);
            return Ok(());
        };
        let index = usize::try_from(index).map_err(io::Error::other)?;
        if index > waiting.next {
            waiting.keep(index, line)?;
        } else {
            self.write(line);
            if index == waiting.next {
                waiting.next += 1;
            }
            while let Some(line) = waiting.remove(waiting.next)? {
                self.write(&line);
                if self.is_full() {
                    self.flush()?;
                }
                waiting.next += 1;
            }
        }
        self.waiting = Some(waiting);
        Ok(())
    }

    /// Writes what has its turn.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        match &mut self.open {
            Open::File(out) => out.file.write_all(&self.ready)?,
            Open::Stream(out) => {
                out.write_all(&self.ready)?;
                out.flush()?;
            }
        }
        self.ready.clear();
        Ok(())
    }

    /// Whether enough has come together to be written.
    pub(crate) fn is_full(&self) -> bool {
        self.ready.len() >= 1024 * 1024
    }

    /// Nothing more comes: the lines behind gaps are written too, and the file gets its name.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        if let Some(mut waiting) = self.waiting.take() {
            for index in waiting.next..waiting.places.len() {
                if let Some(line) = waiting.remove(index)? {
                    self.write(&line);
                }
                if self.is_full() {
                    self.flush()?;
                }
            }
        }
        self.flush()?;
        match self.open {
            Open::File(out) => out.finish(),
            Open::Stream(_) => Ok(()),
        }
    }

    fn write(&mut self, line: &[u8]) {
        match self.form {
            Form::Json => self.ready.extend_from_slice(line),
            Form::Text => {
                self.ready.extend_from_slice(answer::described(&String::from_utf8_lossy(line)).as_bytes());
            }
        }
        self.ready.push(b'\n');
    }
}

impl Waiting {
    fn keep(&mut self, index: usize, line: &[u8]) -> io::Result<()> {
        let length = u32::try_from(line.len()).map_err(io::Error::other)?;
        self.file.write_all_at(&length.to_le_bytes(), self.end)?;
        self.file.write_all_at(line, self.end + 4)?;
        if self.places.len() <= index {
            self.places.resize(index + 1, 0);
        }
        if let Some(place) = self.places.get_mut(index) {
            *place = self.end + 1;
        }
        self.end += 4 + u64::from(length);
        Ok(())
    }

    fn remove(&mut self, index: usize) -> io::Result<Option<Vec<u8>>> {
        let place = self.places.get_mut(index).map_or(0, std::mem::take);
        let Some(start) = place.checked_sub(1) else { return Ok(None) };
        let mut length = [0; 4];
        self.file.read_exact_at(&mut length, start)?;
        let mut line = vec![0; usize::try_from(u32::from_le_bytes(length)).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut line, start + 4)?;
        Ok(Some(line))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(index: usize) -> String {
        format!("line {index} {}", "x".repeat(index % 7))
    }

    proptest! {
        #[test]
        fn any_order_becomes_the_order_of_the_input(
            order in (0_usize..60).prop_flat_map(|n| Just((0..n).collect::<Vec<_>>()).prop_shuffle()),
            gaps in proptest::collection::btree_set(0_usize..60, 0..5),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let mut out = Vec::new();
            let mut sink = Sink::new(Target::Stream(&mut out), Form::Json, true, folder.path()).unwrap();
            for index in order.iter().filter(|index| !gaps.contains(index)) {
                sink.take(u64::try_from(*index).unwrap(), text(*index).as_bytes()).unwrap();
            }
            sink.finish().unwrap();
            let expected: String =
                (0..order.len()).filter(|index| !gaps.contains(index)).map(|index| text(index) + "\n").collect();
            prop_assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    fn sink(path: &Path, may_replace: bool) -> Result<Sink<'static>, OutError> {
        let target = Target::File(OutFile::open(path, may_replace)?);
        Ok(Sink::new(target, Form::Json, false, &std::env::temp_dir())?)
    }

    #[test]
    fn a_file_has_its_name_only_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (path, part) = (folder.path().join("out.jsonl"), folder.path().join("out.jsonl.part"));
        let mut first = sink(&path, false).unwrap();
        first.take(5, b"five").unwrap();
        first.flush().unwrap();
        assert_eq!(fs::read_to_string(&part).unwrap(), "five\n");
        assert!(!path.exists());
        assert!(matches!(sink(&path, true), Err(OutError::InUse)), "two commands do not write to one file");
        assert_eq!(fs::read_to_string(&part).unwrap(), "five\n");
        first.take(2, b"two").unwrap();
        first.finish().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "five\ntwo\n");
        assert!(!part.exists());
    }

    #[test]
    fn what_is_there_is_replaced_only_when_it_may_be() {
        let folder = tempfile::tempdir().unwrap();
        let (path, part) = (folder.path().join("out.jsonl"), folder.path().join("out.jsonl.part"));
        fs::write(&path, "old").unwrap();
        assert!(matches!(sink(&path, false), Err(OutError::Exists)));
        drop(sink(&path, true).unwrap());
        assert!(!part.exists(), "nothing is left of what never began");
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        sink(&path, true).unwrap().finish().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "", "a batch without results is whole, too");
        fs::remove_file(&path).unwrap();
        let late = sink(&path, false).unwrap();
        fs::write(&path, "somebody else's").unwrap();
        assert_eq!(late.finish().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "somebody else's");
        assert!(matches!(sink(folder.path(), true), Err(OutError::Io(_))));
        assert!(matches!(sink(&folder.path().join("none/out.jsonl"), false), Err(OutError::Io(_))));
        sink(Path::new("/dev/null"), false).unwrap().finish().unwrap();
    }
}
