//! Holds: server-sent events, read from pieces of any size and written as frames.
//!
//! Line ends may be LF, CRLF or CR and fall anywhere. An event that lies in one piece is a slice of it; only what is
//! split is copied. It does not know what the data means.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

/// Most bytes of one event. A chunk is some hundred bytes; logprobs of many tokens stay far below.
pub const MAX_EVENT_BYTES: usize = 1024 * 1024;

/// What a stream is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// An event.
    Event(SseEvent),
    /// A comment line, which servers send to keep the connection open.
    Comment,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SseEvent {
    /// The `event` field, when there is one.
    pub event: Option<Bytes>,
    /// The data; several data lines are joined by LF.
    pub data: Bytes,
}

/// An event is larger than [`MAX_EVENT_BYTES`]; the stream cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is larger than {MAX_EVENT_BYTES} bytes")]
pub struct EventTooLarge;

/// Reads events from a stream that arrives in pieces.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Pieces not read yet; the first may be read in part.
    pieces: VecDeque<Bytes>,
    /// A line whose end has not come yet.
    partial: BytesMut,
    /// The last line ended in CR, so that an LF now belongs to it.
    after_cr: bool,
    started: bool,
    data: Option<Data>,
    event: Option<Bytes>,
}

#[derive(Debug)]
enum Data {
    One(Bytes),
    Joined(BytesMut),
}

impl Data {
    fn len(&self) -> usize {
        match self {
            Data::One(line) => line.len(),
            Data::Joined(lines) => lines.len(),
        }
    }

    fn joined(self, line: &[u8]) -> Self {
        let mut all = match self {
            Data::One(first) => BytesMut::from(first),
            Data::Joined(lines) => lines,
        };
        all.extend_from_slice(b"\n");
        all.extend_from_slice(line);
        Data::Joined(all)
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Data::One(line) => line,
            Data::Joined(lines) => lines.freeze(),
        }
    }
}

impl Decoder {
    /// At the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece. Read it out with [`next_item`](Self::next_item) before pushing more: pieces wait here.
    pub fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.pieces.push_back(piece);
        }
    }

    /// The next item that is complete, or `None` when more bytes are needed.
    pub fn next_item(&mut self) -> Result<Option<Item>, EventTooLarge> {
        while let Some(line) = self.next_line()? {
            if let Some(item) = self.take_line(line)? {
                return Ok(Some(item));
            }
        }
        Ok(None)
    }

    /// The event that the stream ended in the middle of. Servers exist that close right after the last data line.
    pub fn finish(&mut self) -> Result<Option<Item>, EventTooLarge> {
        if !self.partial.is_empty() {
            let line = self.partial.split().freeze();
            if let Some(item) = self.take_line(line)? {
                return Ok(Some(item));
            }
        }
        Ok(self.dispatch())
    }

    fn next_line(&mut self) -> Result<Option<Bytes>, EventTooLarge> {
        while let Some(piece) = self.pieces.front_mut() {
            if std::mem::take(&mut self.after_cr) && piece.first() == Some(&b'\n') {
                piece.advance(1);
            }
            let Some(end) = memchr::memchr2(b'\n', b'\r', piece) else {
                if self.partial.len() + piece.len() > MAX_EVENT_BYTES {
                    return Err(EventTooLarge);
                }
                self.partial.extend_from_slice(piece);
                self.pieces.pop_front();
                continue;
            };
            let line = piece.split_to(end);
            self.after_cr = piece.first() == Some(&b'\r');
            piece.advance(1);
            if piece.is_empty() {
                self.pieces.pop_front();
            }
            if self.partial.is_empty() {
                return Ok(Some(line));
            }
            self.partial.extend_from_slice(&line);
            return Ok(Some(self.partial.split().freeze()));
        }
        Ok(None)
    }

    fn take_line(&mut self, line: Bytes) -> Result<Option<Item>, EventTooLarge> {
        let line = self.without_byte_order_mark(line);
        if line.is_empty() {
            return Ok(self.dispatch());
        }
        if line.first() == Some(&b':') {
            return Ok(Some(Item::Comment));
        }
        let colon = memchr::memchr(b':', &line).unwrap_or(line.len());
        let mut value = line.slice(line.len().min(colon + 1)..);
        if value.first() == Some(&b' ') {
            value.advance(1);
        }
        match &line[..colon] {
            b"data" => {
                let so_far = self.data.as_ref().map_or(0, Data::len);
                if so_far + value.len() > MAX_EVENT_BYTES {
                    return Err(EventTooLarge);
                }
                self.data = Some(match self.data.take() {
                    None => Data::One(value),
                    Some(data) => data.joined(&value),
                });
            }
            b"event" => self.event = Some(value),
            _ => {}
        }
        Ok(None)
    }

    fn without_byte_order_mark(&mut self, mut line: Bytes) -> Bytes {
        if !self.started && line.starts_with("\u{feff}".as_bytes()) {
            line.advance('\u{feff}'.len_utf8());
        }
        self.started = true;
        line
    }

    /// A blank line: what has gathered is an event, unless it has no data.
    fn dispatch(&mut self) -> Option<Item> {
        let event = self.event.take();
        let data = self.data.take()?.into_bytes();
        Some(Item::Event(SseEvent { event, data }))
    }
}

/// `data: …` and the blank line. The data must be one line.
pub fn frame(data: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(data.len() + "data: \n\n".len());
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(data);
    out.extend_from_slice(b"\n\n");
    out.into()
}

/// What is between `data: ` and the blank line of such a frame.
pub fn data_of(frame: &[u8]) -> &[u8] {
    let data = frame.strip_prefix(b"data: ").unwrap_or(frame);
    data.strip_suffix(b"\n\n").unwrap_or(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_gives_its_data_back() {
        for data in [&b"{}"[..], b"", b"data: \\n\\n"] {
            assert_eq!(data_of(&frame(data)), data);
        }
        assert_eq!(data_of(b"none"), b"none");
    }

    fn all(pieces: impl IntoIterator<Item = Bytes>) -> Result<Vec<Item>, EventTooLarge> {
        let mut decoder = Decoder::new();
        let mut items = Vec::new();
        for piece in pieces {
            decoder.push(piece);
            while let Some(item) = decoder.next_item()? {
                items.push(item);
            }
        }
        items.extend(decoder.finish()?);
        Ok(items)
    }

    fn event(data: &str) -> Item {
        Item::Event(SseEvent { event: None, data: Bytes::copy_from_slice(data.as_bytes()) })
    }

    #[test]
    fn every_form_of_line_is_read() {
        let text = "\u{feff}data: a\n\n: keep-alive\n\ndata:b\r\n\r\ndata: c\rdata: d\r\revent: x\nid: 1\ndata\n\nevent: y\n\ndata: [DONE]";
        let items = all([Bytes::from_static(text.as_bytes())]).unwrap();
        let named = Item::Event(SseEvent { event: Some(Bytes::from_static(b"x")), data: Bytes::new() });
        assert_eq!(items, [event("a"), Item::Comment, event("b"), event("c\nd"), named, event("[DONE]")]);
    }

    #[test]
    fn event_in_one_piece_is_a_slice_of_it() {
        let piece = Bytes::from_static(b"data: abc\n\ndata: def\n\n");
        let items = all([piece.clone()]).unwrap();
        let Item::Event(second) = &items[1] else { panic!("no event") };
        assert_eq!(second.data.as_ptr(), piece[17..].as_ptr());
    }

    #[test]
    fn size_is_bounded_however_it_comes() {
        let long = "x".repeat(MAX_EVENT_BYTES);
        let fits = format!("data: {}\n\n", &long[6..]);
        assert!(all([Bytes::from(fits)]).is_ok());
        assert_eq!(all([Bytes::from(format!("data: {long}x\n\n"))]), Err(EventTooLarge));
        let endless = std::iter::repeat_n(Bytes::from("x".repeat(1000)), 2000);
        assert_eq!(all(endless), Err(EventTooLarge));
        let lines = std::iter::repeat_n(Bytes::from(format!("data: {}\n", "x".repeat(1000))), 2000);
        assert_eq!(all(lines), Err(EventTooLarge));
    }

    #[test]
    fn frame_reads_back() {
        assert_eq!(frame(b"{}"), "data: {}\n\n");
        assert_eq!(all([frame(b"{}")]).unwrap(), [event("{}")]);
    }
}
