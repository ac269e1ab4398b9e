//! Holds: the quotes of a table, followed byte by byte.
//!
//! A reader of tables makes one cell of everything up to the next quote, however many rows that are, without a word.

use std::collections::VecDeque;

const BYTE_ORDER_MARK: &[u8; 3] = b"\xef\xbb\xbf";

/// Where in a row a byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    CellStart,
    Bare,
    Quoted,
    AfterQuote,
}

/// Follows quotes; lines end in `\n` and count from 1.
#[derive(Debug)]
pub(super) struct Quotes {
    delimiter: u8,
    place: Place,
    line: u64,
    /// Rows that have begun; those that are empty are none.
    rows: u64,
    /// Where the row begins, once it has.
    row: Option<u64>,
    /// Where the last quote was opened.
    opened: u64,
    /// Bytes of a byte order mark that may still come.
    mark: &'static [u8],
    /// No more than the reader reads ahead.
    strays: VecDeque<Stray>,
}

/// A row whose quotes are wrong.
#[derive(Debug)]
pub(super) struct Stray {
    /// Counted from 1, without empty lines.
    row: u64,
    /// Where it begins.
    pub line: u64,
    /// What is wrong.
    pub what: String,
}

impl Quotes {
    pub(super) fn new(delimiter: u8) -> Self {
        let (row, opened, strays) = (None, 0, VecDeque::new());
        Self { delimiter, place: Place::CellStart, line: 1, rows: 0, row, opened, mark: BYTE_ORDER_MARK, strays }
    }

    pub(super) fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match self.mark {
                [first, rest @ ..] if first == byte => self.mark = rest,
                _ => {
                    self.mark = &[];
                    self.step(*byte);
                }
            }
        }
    }

    fn step(&mut self, byte: u8) {
        if byte != b'\n' && self.row.is_none() {
            self.row = Some(self.line);
            self.rows += 1;
        }
        self.place = match (self.place, byte) {
            (Place::Quoted, b'"') => Place::AfterQuote,
            (Place::Quoted, _) => Place::Quoted,
            (Place::AfterQuote, b'"') => Place::Quoted,
            (Place::CellStart, b'"') => {
                self.opened = self.line;
                Place::Quoted
            }
            (_, b'\n') => {
                self.row = None;
                Place::CellStart
            }
            (_, byte) if byte == self.delimiter => Place::CellStart,
            (Place::AfterQuote, _) => {
                self.note(&format!("is closed on line {} in the middle of a cell", self.line));
                Place::Bare
            }
            (Place::CellStart | Place::Bare, _) => Place::Bare,
        };
        self.line += u64::from(byte == b'\n');
    }

    /// Nothing more comes.
    pub(super) fn end(&mut self) {
        if self.place == Place::Quoted {
            self.note("is never closed");
        }
    }

    /// What is wrong first with a row, counted from 1; rows are asked for in their order.
    pub(super) fn of_row(&mut self, row: u64) -> Option<Stray> {
        let found = self.strays.pop_front_if(|stray| stray.row <= row);
        while self.strays.pop_front_if(|stray| stray.row <= row).is_some() {}
        found
    }

    fn note(&mut self, what: &str) {
        let (row, line) = (self.rows, self.row.unwrap_or(self.line));
        let what =
            format!("the quote that opens on line {} {what}; a quote within a cell is written \"\"", self.opened);
        self.strays.push_back(Stray { row, line, what });
    }
}
