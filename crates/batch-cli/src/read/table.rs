//! Holds: a CSV file with a template as a stream of rows.

use std::cell::{Cell, RefCell};
use std::io::{self, BufRead, Read};
use std::rc::Rc;

use batchin_settings::nearest;
use csv::{ByteRecord, ReaderBuilder, Terminator};

use super::json_line::{self, Defaults};
use super::quotes::Quotes;
use super::{MAX_LINE_BYTES, Row, Template};

/// How a table is read.
pub(crate) struct TableOptions<'a> {
    pub template: Template,
    pub id_column: Option<&'a str>,
    pub model: Option<&'a str>,
    /// `,` or a tab.
    pub delimiter: u8,
}

/// Why a table cannot be read at all.
#[derive(Debug)]
pub(crate) enum TableError {
    /// Faults of its first row, or of the template in view of it.
    Header(Vec<String>),
    Broken(io::Error),
}

/// Rows of a table.
pub(crate) struct Table<'a, R> {
    records: csv::Reader<Unified<R>>,
    budget: Rc<Cell<usize>>,
    quotes: Rc<RefCell<Quotes>>,
    record: ByteRecord,
    /// Rows that were read, the first one included.
    rows: u64,
    columns: Vec<String>,
    id_index: Option<usize>,
    options: TableOptions<'a>,
    is_broken: bool,
}

impl<'a, R: BufRead> Table<'a, R> {
    /// Reads the first row, and checks the template against it.
    pub(crate) fn new(input: R, options: TableOptions<'a>) -> Result<Self, TableError> {
        let budget = Rc::new(Cell::new(MAX_LINE_BYTES));
        let quotes = Rc::new(RefCell::new(Quotes::new(options.delimiter)));
        let shared = (Rc::clone(&budget), Rc::clone(&quotes));
        let unified = Unified { input, budget: shared.0, quotes: shared.1, last: Last::Nothing };
        let mut records = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(options.delimiter)
            .terminator(Terminator::Any(b'\n'))
            .from_reader(unified);
        let mut record = ByteRecord::new();
        let some = records.read_byte_record(&mut record).map_err(|error| TableError::Broken(io_of(error)))?;
        if !some {
            return Err(TableError::Header(vec!["has no first row with the names of the columns".to_owned()]));
        }
        let columns: Vec<String> = record.iter().map(column_name).collect();
        let stray = quotes.borrow_mut().of_row(1);
        let faults = stray.map_or_else(|| header_faults(&columns, &options), |stray| vec![stray.what]);
        if !faults.is_empty() {
            return Err(TableError::Header(faults));
        }
        let id_index = options.id_column.and_then(|name| columns.iter().position(|column| column == name));
        Ok(Self { records, budget, quotes, record, rows: 1, columns, id_index, options, is_broken: false })
    }

    /// Blank lines and line breaks in cells make a row's first line differ from what the reader counts.
    fn first_line(&self) -> u64 {
        let inner = self.record.iter().flatten().filter(|byte| **byte == b'\n').count();
        let after = self.records.position().line();
        after.saturating_sub(1).saturating_sub(u64::try_from(inner).unwrap_or(u64::MAX)).max(1)
    }

    fn task(&self, line: u64) -> Result<super::Task, String> {
        if self.record.len() != self.columns.len() {
            return Err(format!(
                "has {} cells where the first row has {}; quote cells with a delimiter in them",
                self.record.len(),
                self.columns.len()
            ));
        }
        let texts = self.record.iter().zip(&self.columns).map(|(cell, column)| {
            std::str::from_utf8(cell).map_err(|_| format!("the cell of column \"{column}\" is not UTF-8"))
        });
        let cells = texts.collect::<Result<Vec<&str>, String>>()?;
        let custom_id = match (self.id_index.and_then(|index| cells.get(index)), self.options.id_column) {
            (Some(id), Some(column)) if id.trim().is_empty() => {
                return Err(format!("the cell of column \"{column}\" is empty; it must be the custom_id"));
            }
            (id, _) => id.copied(),
        };
        let defaults = Defaults { custom_id, line, model: self.options.model };
        let text = self.options.template.render(&self.columns, &cells)?;
        if self.options.template.is_json() {
            return json_line::parse(&text, defaults).map_err(|what| format!("what the template makes of it {what}"));
        }
        if text.trim().is_empty() {
            return Err("the template makes an empty prompt of it".to_owned());
        }
        json_line::chat(&text, defaults)
    }
}

impl<R: BufRead> Iterator for Table<'_, R> {
    type Item = io::Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_broken {
            return None;
        }
        self.budget.set(MAX_LINE_BYTES);
        match self.records.read_byte_record(&mut self.record) {
            Ok(true) => {
                self.rows += 1;
                let stray = self.quotes.borrow_mut().of_row(self.rows);
                Some(Ok(match stray {
                    Some(stray) => Row { line: stray.line, task: Err(stray.what) },
                    None => {
                        let line = self.first_line();
                        Row { line, task: self.task(line) }
                    }
                }))
            }
            Ok(false) => None,
            Err(error) => {
                self.is_broken = true;
                let line = self.records.position().line();
                match io_of(error) {
                    error if error.kind() == io::ErrorKind::FileTooLarge => {
                        let what = format!("the row has more than {} MiB; is a quote missing?", MAX_LINE_BYTES >> 20);
                        Some(Ok(Row { line, task: Err(what) }))
                    }
                    error => Some(Err(error)),
                }
            }
        }
    }
}

fn column_name(cell: &[u8]) -> String {
    String::from_utf8_lossy(cell).trim_start_matches('\u{feff}').trim().to_owned()
}

fn header_faults(columns: &[String], options: &TableOptions<'_>) -> Vec<String> {
    let mut faults = Vec::new();
    for (index, column) in columns.iter().enumerate() {
        if columns.iter().take(index).any(|earlier| earlier == column) {
            faults.push(format!("the column \"{column}\" stands twice in the first row"));
        }
    }
    let all = columns.join(", ");
    let missing = |name: &str| match nearest(name, columns.iter().map(String::as_str)) {
        Some(meant) => format!("there is no column \"{name}\"; did you mean \"{meant}\"? There are {all}"),
        None => format!("there is no column \"{name}\"; there are {all}"),
    };
    if let Some(id) = options.id_column.filter(|id| !columns.iter().any(|column| column == id)) {
        faults.push(format!("--id-column: {}", missing(id)));
    }
    faults.extend(options.template.unknown_names(columns).iter().map(|name| format!("template: {}", missing(name))));
    faults
}

fn io_of(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

/// The last byte that was handed on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Nothing,
    Newline,
    Other,
    End,
}

/// The input with `\n` for every line break and at its end, so that lines can be counted, and with a bound on what one
/// row may read.
struct Unified<R> {
    input: R,
    budget: Rc<Cell<usize>>,
    quotes: Rc<RefCell<Quotes>>,
    last: Last,
}

impl<R: BufRead> Read for Unified<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let part = self.input.fill_buf()?;
            if part.is_empty() {
                return Ok(self.end(into));
            }
            let taken = part.len().min(into.len());
            let part = &part[..taken];
            let (is_cr_last, kept) = (part.last() == Some(&b'\r'), without_returns(part, into));
            self.input.consume(taken);
            // A return at the end of a part is one before a newline if that comes next.
            let is_alone = is_cr_last && self.input.fill_buf()?.first() != Some(&b'\n');
            let kept = if is_alone { push(into, kept, b'\r') } else { kept };
            if kept == 0 {
                continue;
            }
            let left = self.budget.get().checked_sub(kept).ok_or(io::ErrorKind::FileTooLarge)?;
            self.budget.set(left);
            self.quotes.borrow_mut().take(into.get(..kept).unwrap_or_default());
            self.last = if into.get(kept - 1) == Some(&b'\n') { Last::Newline } else { Last::Other };
            return Ok(kept);
        }
    }
}

impl<R> Unified<R> {
    fn end(&mut self, into: &mut [u8]) -> usize {
        let before = std::mem::replace(&mut self.last, Last::End);
        if before != Last::End {
            self.quotes.borrow_mut().end();
        }
        if before == Last::Other { push(into, 0, b'\n') } else { 0 }
    }
}

fn push(into: &mut [u8], at: usize, byte: u8) -> usize {
    into.get_mut(at).map_or(at, |place| {
        *place = byte;
        at + 1
    })
}

/// Copies all but the returns before newlines, and a return at the very end.
fn without_returns(part: &[u8], into: &mut [u8]) -> usize {
    let mut kept = 0;
    for (index, byte) in part.iter().enumerate() {
        let is_break = *byte == b'\r' && part.get(index + 1).is_none_or(|next| *next == b'\n');
        if !is_break {
            kept = push(into, kept, *byte);
        }
    }
    kept
}
