//! Holds: `batchin batch run`: from a file to its results.

use std::fs::File;
use std::io::{self, BufRead, BufReader};

use rand::RngCore as _;

use super::arguments::BatchRun;
use super::follow::follow;
use super::prepare::{self, Fault, MAX_FAULTS, PrepareError, Prepared};
use super::progress::Progress;
use super::read::{JsonLines, Rows, Table, TableError, TableOptions, Template};
use super::talk::{Client, ClientError, LineFault, understood};
use super::terminal::{BatchError, Terminal, open, print, spool_folder};
use super::{show, submit};
use crate::outcome::Outcome;

/// What the API takes as one inline batch, in bytes of JSON.
const MAX_INLINE_BYTES: usize = 2_000_000;
/// Read at once.
const READ_BYTES: usize = 128 * 1024;
/// A template is written by hand.
const MAX_TEMPLATE_BYTES: u64 = 1_000_000;

/// Submits a file, follows it to its end and delivers the results. Fails when a task did.
pub(super) async fn run(client: &Client, run: &BatchRun, mut terminal: Terminal<'_>) -> Result<Outcome, BatchError> {
    let out = if run.estimate { None } else { open(&run.delivery)? };
    let input = read(run)?;
    let progress = Progress::new(terminal.is_interactive);
    if run.estimate {
        return estimate(client, run, &input, (&progress, terminal)).await;
    }
    let key = nonce();
    let submission = async {
        client.greet(&progress).await?;
        submit::submit(client, &input, &run.terms, (&key, &progress)).await
    };
    let submitted = tokio::select! {
        submitted = submission => submitted,
        () = terminal.interrupts.next() => {
            progress.close();
            return Err(BatchError::Stopped);
        }
    };
    let id = submitted.inspect_err(|_| progress.close()).map_err(|error| refused(error, run, &input))?;
    progress.say(&format!("submitted batch {id}"));
    let (outcome, found) = follow(client, &id, (&run.delivery, out, &progress), terminal).await?;
    if found.is_empty() {
        return Ok(outcome);
    }
    let faults = found.into_iter().map(|fault| of_line(fault, &input)).collect::<Vec<_>>();
    Err(shown(run, &faults, "nothing was run"))
}

async fn estimate(
    client: &Client,
    run: &BatchRun,
    input: &Prepared,
    (progress, terminal): (&Progress, Terminal<'_>),
) -> Result<Outcome, BatchError> {
    let answer = match client.greet(progress).await {
        Ok(()) => submit::estimate(client, input, &run.terms, progress).await,
        Err(error) => Err(error),
    };
    progress.close();
    let answer = answer.map_err(|error| refused(error, run, input))?;
    let text = if run.delivery.json { format!("{answer}\n") } else { show::estimate(&understood(&answer)?) };
    print(terminal.out, &text)
}

/// The whole input, checked and converted.
fn read(run: &BatchRun) -> Result<Prepared, BatchError> {
    let form = Form::of(run)?;
    let unreadable = |source| BatchError::Input { file: name(run), source };
    let input: Box<dyn BufRead> = if run.file.as_os_str() == "-" {
        Box::new(BufReader::with_capacity(READ_BYTES, io::stdin()))
    } else {
        Box::new(BufReader::with_capacity(READ_BYTES, File::open(&run.file).map_err(unreadable)?))
    };
    let model = run.model.as_deref();
    let rows: Rows<'_> = match form {
        Form::JsonLines => Box::new(JsonLines::new(input, model)),
        Form::Table { template, delimiter } => {
            let options = TableOptions { template: *template, id_column: run.id_column.as_deref(), model, delimiter };
            Box::new(Table::new(input, options).map_err(|error| match error {
                TableError::Broken(source) => unreadable(source),
                TableError::Header(faults) => {
                    let faults: Vec<Fault> = faults.into_iter().map(|what| Fault { line: 1, what }).collect();
                    shown(run, &faults, "nothing was sent")
                }
            })?)
        }
    };
    let folder = spool_folder();
    let max_inline = MAX_INLINE_BYTES.saturating_sub(submit::inline_overhead(&run.terms));
    prepare::prepare(rows, max_inline, &folder).map_err(|error| match error {
        PrepareError::Faults(faults) => shown(run, &faults, "nothing was sent"),
        PrepareError::Input(source) => unreadable(source),
        PrepareError::Spool(source) => BatchError::Spool { folder: folder.display().to_string(), source },
    })
}

/// What the file is.
enum Form {
    JsonLines,
    Table { template: Box<Template>, delimiter: u8 },
}

impl Form {
    fn of(run: &BatchRun) -> Result<Self, BatchError> {
        let usage = |text: &str| Err(BatchError::Usage { text: text.to_owned() });
        let ending = run.file.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
        let is_table = matches!(ending.as_str(), "csv" | "tsv");
        match template(run)? {
            None if is_table => usage("a CSV file needs --template or --template-file; see `batchin batch run --help`"),
            None if run.id_column.is_some() => usage("--id-column is for CSV files with a --template"),
            None => Ok(Self::JsonLines),
            Some(_) if matches!(ending.as_str(), "jsonl" | "ndjson" | "json") => {
                usage("a template is for CSV files; JSON lines are tasks already")
            }
            Some(source) => {
                let template = Template::new(&source).map_err(|text| BatchError::Usage { text })?;
                Ok(Self::Table { template: Box::new(template), delimiter: if ending == "tsv" { b'\t' } else { b',' } })
            }
        }
    }
}

fn template(run: &BatchRun) -> Result<Option<String>, BatchError> {
    let Some(path) = &run.template_file else { return Ok(run.template.clone()) };
    let unreadable = |source| BatchError::Input { file: path.display().to_string(), source };
    let mut text = String::new();
    let file = File::open(path).map_err(unreadable)?;
    let read = io::Read::read_to_string(&mut io::Read::take(file, MAX_TEMPLATE_BYTES + 1), &mut text);
    match read.map_err(unreadable)? {
        read if u64::try_from(read).is_ok_and(|read| read > MAX_TEMPLATE_BYTES) => {
            Err(unreadable(io::Error::new(io::ErrorKind::FileTooLarge, "a template has at most 1 MB")))
        }
        _ => Ok(Some(text)),
    }
}

/// The server's words, with the lines of the input where they speak of tasks.
fn refused(error: ClientError, run: &BatchRun, input: &Prepared) -> BatchError {
    if let ClientError::Refused { status: 400, message } = &error {
        let faults = submit::faults_of(message, input);
        if !faults.is_empty() {
            return shown(run, &faults, "the server refused the batch; nothing was run");
        }
    }
    BatchError::Server(error)
}

fn of_line(fault: LineFault, input: &Prepared) -> Fault {
    let LineFault { line, message, param } = fault;
    let line = line.map_or(1, |line| input.lines.line(line.saturating_sub(1)));
    Fault { line, what: param.map_or_else(|| message.clone(), |param| format!("{param}: {message}")) }
}

fn shown(run: &BatchRun, faults: &[Fault], end: &str) -> BatchError {
    let file = name(run);
    let mut lines: Vec<String> = faults.iter().map(|fault| format!("{file}:{}: {}", fault.line, fault.what)).collect();
    if faults.len() >= MAX_FAULTS {
        lines.push(format!("these are the first {MAX_FAULTS}; there may be more"));
    }
    lines.push(end.to_owned());
    BatchError::Faults { text: lines.join("\n") }
}

fn name(run: &BatchRun) -> String {
    if run.file.as_os_str() == "-" { "stdin".to_owned() } else { run.file.display().to_string() }
}

/// What makes this run's idempotency key its own.
fn nonce() -> String {
    let mut bytes = [0_u8; 16];
    rand::rng().fill_bytes(&mut bytes);
    hex::encode(bytes)
}
