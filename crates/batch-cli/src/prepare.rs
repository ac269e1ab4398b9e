//! Holds: an input, checked as a whole and converted, before anything is sent.
//!
//! The converted lines go to a file, so that any input can be sent again and memory does not grow with it: eight bytes
//! for each task find duplicate names, and a small input is kept as one inline body beside it.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::path::Path;

use serde::Deserialize;
use tempfile::NamedTempFile;

use super::read::{Row, Task};

/// The most faults that are reported; whoever has more has made the same one over and over.
pub(super) const MAX_FAULTS: usize = 100;
/// Tasks in one batch, as the API has it.
const MAX_TASKS: u64 = 1_000_000;
/// Bytes of one batch's file, as the API has it.
const MAX_FILE_BYTES: u64 = 1_000_000_000;

/// What is wrong with one line, counted from 1.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub line: u64,
    pub what: String,
}

/// Why an input cannot be submitted.
#[derive(Debug)]
pub(super) enum PrepareError {
    Faults(Vec<Fault>),
    Input(io::Error),
    Spool(io::Error),
}

/// An input without faults.
#[derive(Debug)]
pub(super) struct Prepared {
    /// Lines of an OpenAI batch file.
    pub file: NamedTempFile,
    pub bytes: u64,
    pub tasks: u64,
    /// Tasks as the inline call takes them, separated by commas; none when they are too many for it.
    pub inline: Option<Vec<u8>>,
    pub lines: LineMap,
}

/// Which line of the input a task came from.
#[derive(Debug, Default)]
pub(super) struct LineMap {
    /// Where the difference changes: the task's place from 0, and its line. Empty lines and cells with line breaks are
    /// rare, so this is short.
    changes: Vec<(u32, u32)>,
}

/// Reads everything. `max_inline` bounds the inline tasks in bytes; the file lies in `folder`.
pub(super) fn prepare(
    rows: impl Iterator<Item = io::Result<Row>>,
    max_inline: usize,
    folder: &Path,
) -> Result<Prepared, PrepareError> {
    let mut writer = Writer::new(max_inline, folder).map_err(PrepareError::Spool)?;
    let mut faults = Vec::new();
    for row in rows {
        let Row { line, task } = row.map_err(PrepareError::Input)?;
        match task {
            Ok(task) => writer.take(&task, line).map_err(PrepareError::Spool)?,
            Err(what) => faults.push(Fault { line, what }),
        }
        if writer.tasks > MAX_TASKS || writer.bytes > MAX_FILE_BYTES {
            let what = format!("from here on it is too much for one batch ({MAX_TASKS} tasks, 1 GB): split the file");
            faults.push(Fault { line, what });
            break;
        }
        if faults.len() >= MAX_FAULTS {
            break;
        }
    }
    let (prepared, names) = writer.finish().map_err(PrepareError::Spool)?;
    faults.extend(duplicates(&prepared, &names, MAX_FAULTS - faults.len()).map_err(PrepareError::Spool)?);
    if prepared.tasks == 0 && faults.is_empty() {
        faults.push(Fault { line: 1, what: "there is no task in this file".to_owned() });
    }
    if faults.is_empty() {
        return Ok(prepared);
    }
    faults.sort_by_key(|fault| fault.line);
    Err(PrepareError::Faults(faults))
}

/// A hash of each custom_id. Equal ones are only a suspicion, which is looked into on the file itself.
#[derive(Default)]
struct Names {
    state: RandomState,
    hashes: Vec<u64>,
}

struct Writer {
    out: BufWriter<NamedTempFile>,
    bytes: u64,
    tasks: u64,
    inline: Option<Vec<u8>>,
    max_inline: usize,
    lines: LineMap,
    names: Names,
}

impl Writer {
    fn new(max_inline: usize, folder: &Path) -> io::Result<Self> {
        let out = BufWriter::new(NamedTempFile::new_in(folder)?);
        let (lines, names) = (LineMap::default(), Names::default());
        Ok(Self { out, bytes: 0, tasks: 0, inline: Some(Vec::new()), max_inline, lines, names })
    }

    fn take(&mut self, task: &Task, line: u64) -> io::Result<()> {
        let json = task.file_line()?;
        self.out.write_all(&json)?;
        self.bytes += u64::try_from(json.len()).unwrap_or(u64::MAX);
        self.lines.note(self.tasks, line);
        self.names.hashes.push(self.names.state.hash_one(&task.custom_id));
        self.tasks += 1;
        if let Some(inline) = &mut self.inline {
            let json = task.inline()?;
            if inline.len() + json.len() + 1 > self.max_inline {
                self.inline = None;
                return Ok(());
            }
            if !inline.is_empty() {
                inline.push(b',');
            }
            inline.extend_from_slice(&json);
        }
        Ok(())
    }

    fn finish(self) -> io::Result<(Prepared, Names)> {
        let Self { out, bytes, tasks, inline, lines, names, .. } = self;
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok((Prepared { file, bytes, tasks, inline, lines }, names))
    }
}

/// Names that stand more than once, each at the line of its repetition.
fn duplicates(prepared: &Prepared, names: &Names, most: usize) -> io::Result<Vec<Fault>> {
    #[derive(Deserialize)]
    struct Named {
        custom_id: String,
    }
    let mut sorted = names.hashes.clone();
    sorted.sort_unstable();
    let repeated = sorted.windows(2).filter(|pair| matches!(pair, [left, right] if left == right));
    let suspects: HashSet<u64> = repeated.filter_map(|pair| pair.first().copied()).take(most).collect();
    let mut faults = Vec::new();
    if suspects.is_empty() {
        return Ok(faults);
    }
    let mut seen: HashMap<String, u64> = HashMap::new();
    let lines = BufReader::new(prepared.file.reopen()?).lines();
    for ((index, line), hash) in (0_u64..).zip(lines).zip(&names.hashes) {
        let line = line?;
        if !suspects.contains(hash) || faults.len() >= most {
            continue;
        }
        let Named { custom_id } = serde_json::from_str(&line)?;
        let here = prepared.lines.line(index);
        match seen.get(&custom_id) {
            Some(first) => {
                faults.push(Fault { line: here, what: format!("custom_id \"{custom_id}\" is also on line {first}") });
            }
            None => {
                seen.insert(custom_id, here);
            }
        }
    }
    Ok(faults)
}

impl LineMap {
    fn note(&mut self, task: u64, line: u64) {
        if self.line(task) == line && !self.changes.is_empty() {
            return;
        }
        if let (Ok(task), Ok(line)) = (u32::try_from(task), u32::try_from(line)) {
            self.changes.push((task, line));
        }
    }

    /// The line of the task at this place, counted from 0.
    pub(super) fn line(&self, task: u64) -> u64 {
        let after = self.changes.partition_point(|(first, _)| u64::from(*first) <= task);
        match after.checked_sub(1).and_then(|index| self.changes.get(index)) {
            Some((first, line)) => u64::from(*line) + (task - u64::from(*first)),
            None => task + 1,
        }
    }
}

#[cfg(test)]
mod tests;
