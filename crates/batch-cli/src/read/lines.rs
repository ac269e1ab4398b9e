//! Holds: a file of JSON lines as a stream of rows.

use std::io::{self, BufRead, Read as _};

use super::json_line::{self, Defaults};
use super::{MAX_LINE_BYTES, Row};

/// Rows of a file of JSON lines; empty lines are passed over.
pub(crate) struct JsonLines<'a, R> {
    input: R,
    model: Option<&'a str>,
    line: u64,
    buffer: Vec<u8>,
}

impl<'a, R: BufRead> JsonLines<'a, R> {
    /// `model` is for the lines that name none.
    pub(crate) fn new(input: R, model: Option<&'a str>) -> Self {
        Self { input, model, line: 0, buffer: Vec::new() }
    }

    /// Whether there was one more line; it is in the buffer, without what is too much of it.
    fn advance(&mut self) -> io::Result<bool> {
        self.buffer.clear();
        let limit = u64::try_from(MAX_LINE_BYTES).unwrap_or(u64::MAX);
        let read = self.input.by_ref().take(limit.saturating_add(1)).read_until(b'\n', &mut self.buffer)?;
        if self.buffer.len() > MAX_LINE_BYTES && !self.buffer.ends_with(b"\n") {
            self.skip_to_newline()?;
        }
        self.line += 1;
        if self.line == 1 && self.buffer.starts_with(b"\xef\xbb\xbf") {
            self.buffer.drain(..3);
        }
        Ok(read > 0)
    }

    fn skip_to_newline(&mut self) -> io::Result<()> {
        loop {
            let part = self.input.fill_buf()?;
            let end = part.iter().position(|byte| *byte == b'\n');
            let used = end.map_or(part.len(), |end| end + 1);
            let is_over = end.is_some() || part.is_empty();
            self.input.consume(used);
            if is_over {
                return Ok(());
            }
        }
    }

    fn row(&self) -> Option<Row> {
        let defaults = Defaults { custom_id: None, line: self.line, model: self.model };
        let task = match std::str::from_utf8(&self.buffer) {
            _ if self.buffer.len() > MAX_LINE_BYTES => {
                Err(format!("is longer than {} MiB", MAX_LINE_BYTES / (1024 * 1024)))
            }
            Ok(text) if text.trim().is_empty() => return None,
            Ok(text) => json_line::parse(text.trim_end_matches(['\r', '\n']), defaults),
            Err(fault) => Err(format!("is not UTF-8 at byte {}", fault.valid_up_to() + 1)),
        };
        Some(Row { line: self.line, task })
    }
}

impl<R: BufRead> Iterator for JsonLines<'_, R> {
    type Item = io::Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.advance() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(Err(error)),
            }
            if let Some(row) = self.row() {
                return Some(Ok(row));
            }
        }
    }
}
