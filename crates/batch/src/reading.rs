//! Holds: checking a batch's file, every line of it, before anything runs.

use std::hash::{BuildHasher, RandomState};

use batchin_domain::{CallKind, Priority};
use batchin_files::Blobs;
use batchin_gateway::Gateway;
use batchin_openai::Code;
use batchin_store::BatchRow;

use crate::{
    CheckedTask, LineFault, MAX_FAULTS,
    input::{Input, InputError, InputLine, MAX_LINE_BYTES},
    lines::{check_body, read_line},
};

/// Lines of one file: as many as the largest peer takes.
pub const MAX_LINES: u32 = 1_000_000;
/// Lines checked before other work gets its turn.
const LINES_PER_TURN: u32 = 64;

/// What checking a file has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Every line can run.
    Good {
        /// How many lines there are.
        total: u32,
        /// The one model that all of them name, where that is so.
        model: Option<String>,
    },
    /// Nothing of it runs.
    Bad(Vec<LineFault>),
}

/// What is asked about a file.
pub(crate) struct Question {
    pub blob: String,
    pub priority: Priority,
    /// The one kind of call that all lines must be.
    pub call: Option<CallKind>,
}

impl From<&BatchRow> for Question {
    fn from(batch: &BatchRow) -> Self {
        Self { blob: batch.input_blob.clone(), priority: batch.terms.priority, call: batch.terms.call }
    }
}

/// Names seen so far. A name is kept as 128 bits of a keyed hash, so that a million of them fit into 24 MB and nobody
/// can make two meet.
struct Names {
    keys: [RandomState; 2],
    seen: Vec<(u64, u64, u32)>,
}

/// Reads and checks a whole file. Calls `each` with every line that is good.
pub(crate) async fn read(
    gateway: &Gateway,
    blobs: &Blobs,
    question: Question,
    mut each: impl FnMut(CheckedTask),
) -> Result<Verdict, InputError> {
    let mut input = Input::open(blobs.clone(), question.blob.clone(), 0).await.map_err(InputError::Blob)?;
    let mut names = Names { keys: [RandomState::new(), RandomState::new()], seen: Vec::new() };
    let (mut faults, mut total) = (Vec::new(), 0_u32);
    let mut model: Option<Option<String>> = None;
    while faults.len() < MAX_FAULTS {
        let line = match input.next().await {
            Ok(Some(line)) => line,
            Ok(None) => break,
            Err(InputError::TooLong { number }) => {
                let message = format!("has more than {MAX_LINE_BYTES} bytes");
                faults.push(LineFault::of_file(Code::LineTooLong, message).on(number));
                break;
            }
            Err(cause) => return Err(cause),
        };
        total += 1;
        if total > MAX_LINES {
            let message = format!("a batch has at most {MAX_LINES} requests; split the file");
            faults.push(LineFault::of_file(Code::TooManyTasks, message).on(line.number));
            break;
        }
        match names.check(gateway, &question, &line) {
            Ok(checked) => {
                let same = model.get_or_insert_with(|| Some(checked.model.clone()));
                if same.as_ref() != Some(&checked.model) {
                    *same = None;
                }
                each(checked);
            }
            Err(fault) => faults.push(fault.on(line.number)),
        }
        if total.is_multiple_of(LINES_PER_TURN) {
            tokio::task::yield_now().await;
        }
    }
    faults.extend(names.repeated(MAX_FAULTS.saturating_sub(faults.len())));
    if total == 0 && faults.is_empty() {
        faults.push(LineFault::of_file(Code::EmptyFile, "the file has no request; put one on each line"));
    }
    if faults.is_empty() {
        return Ok(Verdict::Good { total, model: model.flatten() });
    }
    faults.sort_by_key(|fault| fault.line);
    Ok(Verdict::Bad(faults))
}

impl Names {
    fn check(&mut self, gateway: &Gateway, question: &Question, line: &InputLine) -> Result<CheckedTask, LineFault> {
        let declared = question.call;
        let read = read_line(&line.text, declared)?;
        let [a, b] = self.keys.each_ref().map(|key| key.hash_one(read.custom_id.as_str()));
        self.seen.push((a, b, u32::try_from(line.number).unwrap_or(u32::MAX)));
        let class = question.priority.class();
        Ok(check_body(gateway, (read.call, class), line.text.slice(read.body))?.into())
    }

    /// Faults of lines whose name an earlier line has, up to `limit`.
    fn repeated(&mut self, limit: usize) -> Vec<LineFault> {
        self.seen.sort_unstable();
        let mut faults: Vec<_> = self
            .seen
            .chunk_by(|x, y| (x.0, x.1) == (y.0, y.1))
            .flat_map(|same| {
                let first = same.first().map_or(0, |seen| seen.2);
                same.iter().skip(1).map(move |(_, _, line)| (*line, first))
            })
            .collect();
        faults.sort_unstable();
        faults.truncate(limit);
        let fault = |(line, first): (u32, u32)| {
            let message = format!("must be unique in the file; line {first} has the same");
            LineFault::at("custom_id", Code::DuplicateCustomId, message).on(u64::from(line))
        };
        faults.into_iter().map(fault).collect()
    }
}
