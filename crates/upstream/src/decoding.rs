//! Holds: the answers that come compressed although nobody asked for it, decoded piece by piece.
//!
//! What one piece of input may become is bounded here; what a whole answer or event may be is bounded where it is read.

use std::io::{self, Write};

use bytes::{Buf, Bytes};
use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::{HeaderMap, HeaderValue, header};

/// Most bytes of input that are decoded at once.
const PIECE_BYTES: usize = 4 * 1024;

/// Most bytes that a piece may become. The formats reach about a thousandfold, with text of one letter.
const MAX_DECODED_BYTES: usize = 2_000 * PIECE_BYTES;

/// An answer whose bytes cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer's encoding cannot be read")]
pub(crate) struct UnreadableEncoding;

/// An answer's bytes on their way out of their encoding.
pub(crate) struct Decoding {
    inflater: Inflater,
    rest: Bytes,
    is_over: bool,
}

enum Inflater {
    Gzip(MultiGzDecoder<Bounded>),
    /// Before its first byte, which tells whether it is as the standard has it or bare, as some servers send it.
    Deflate,
    Zlib(ZlibDecoder<Bounded>),
    Bare(DeflateDecoder<Bounded>),
}

impl Decoding {
    /// What the head says about the body: as it is, encoded, or in a way that cannot be read. A `transfer-encoding` other
    /// than `chunked` leaves open where the body ends, so that it would be waited for.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Option<Box<Self>>, UnreadableEncoding> {
        let mut transfer = headers.get_all(header::TRANSFER_ENCODING).iter();
        if !transfer.all(|value| is_one_of(value, &["chunked", "identity"])) {
            return Err(UnreadableEncoding);
        }
        let mut inflater = None;
        for value in headers.get_all(header::CONTENT_ENCODING) {
            let found = match value {
                value if is_one_of(value, &["identity", ""]) => continue,
                value if is_one_of(value, &["gzip", "x-gzip"]) => {
                    Inflater::Gzip(MultiGzDecoder::new(Bounded::default()))
                }
                value if is_one_of(value, &["deflate"]) => Inflater::Deflate,
                _ => return Err(UnreadableEncoding),
            };
            // No server encodes twice.
            if inflater.replace(found).is_some() {
                return Err(UnreadableEncoding);
            }
        }
        Ok(inflater.map(|inflater| Box::new(Self { inflater, rest: Bytes::new(), is_over: false })))
    }

    /// Takes the next bytes in, once [`next`](Self::next) has none left.
    pub(crate) fn push(&mut self, data: Bytes) {
        self.rest = data;
    }

    /// The body has ended.
    pub(crate) fn end(&mut self) -> Result<(), UnreadableEncoding> {
        self.is_over = true;
        let ended = match &mut self.inflater {
            Inflater::Gzip(decoder) if decoder.get_ref().is_unused => Ok(()),
            Inflater::Gzip(decoder) => decoder.try_finish(),
            Inflater::Zlib(decoder) => decoder.try_finish(),
            Inflater::Bare(decoder) => decoder.try_finish(),
            Inflater::Deflate => Ok(()),
        };
        ended.map_err(|_| UnreadableEncoding)
    }

    /// The next bytes, decoded; `None` when more input is needed.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, UnreadableEncoding> {
        loop {
            let decoded = self.inflater.taken();
            if !decoded.is_empty() {
                return Ok(Some(decoded.into()));
            }
            if self.rest.is_empty() {
                return Ok(None);
            }
            let piece = self.rest.split_to(self.rest.remaining().min(PIECE_BYTES));
            self.inflater.write(&piece).map_err(|_| UnreadableEncoding)?;
        }
    }

    /// Whether everything has been handed out.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }
}

impl Inflater {
    fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        if let (Self::Deflate, Some(first)) = (&*self, piece.first()) {
            // A stream as RFC 1950 has it begins with its method, 8.
            let is_zlib = first & 0x0f == 8;
            *self = if is_zlib {
                Self::Zlib(ZlibDecoder::new(Bounded::default()))
            } else {
                Self::Bare(DeflateDecoder::new(Bounded::default()))
            };
        }
        match self {
            Self::Gzip(decoder) => {
                decoder.get_mut().is_unused = false;
                decoder.write_all(piece).and_then(|()| decoder.flush())
            }
            Self::Zlib(decoder) => decoder.write_all(piece).and_then(|()| decoder.flush()),
            Self::Bare(decoder) => decoder.write_all(piece).and_then(|()| decoder.flush()),
            Self::Deflate => Ok(()),
        }
    }

    fn taken(&mut self) -> Vec<u8> {
        let out = match self {
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Zlib(decoder) => decoder.get_mut(),
            Self::Bare(decoder) => decoder.get_mut(),
            Self::Deflate => return Vec::new(),
        };
        std::mem::take(&mut out.bytes)
    }
}

/// What has been decoded and not handed out.
struct Bounded {
    bytes: Vec<u8>,
    is_unused: bool,
}

impl Default for Bounded {
    fn default() -> Self {
        Self { bytes: Vec::new(), is_unused: true }
    }
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > MAX_DECODED_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn is_one_of(value: &HeaderValue, names: &[&str]) -> bool {
    value.to_str().is_ok_and(|value| names.iter().any(|name| value.trim().eq_ignore_ascii_case(name)))
}

#[cfg(test)]
mod tests {
    use flate2::{
        Compression,
        write::{DeflateEncoder, GzEncoder, ZlibEncoder},
    };

    use super::*;

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    fn decoded(encoding: &str, body: &[u8], piece: usize) -> Result<Vec<u8>, UnreadableEncoding> {
        let mut decoding = Decoding::of(&headers(header::CONTENT_ENCODING, encoding))?.unwrap();
        let mut all = Vec::new();
        for data in body.chunks(piece) {
            decoding.push(Bytes::copy_from_slice(data));
            while let Some(more) = decoding.next()? {
                all.extend_from_slice(&more);
            }
        }
        decoding.end()?;
        while let Some(more) = decoding.next()? {
            all.extend_from_slice(&more);
        }
        Ok(all)
    }

    fn encoded(text: &[u8]) -> [(&'static str, Vec<u8>); 4] {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        let mut bare = DeflateEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(text).unwrap();
        zlib.write_all(text).unwrap();
        bare.write_all(text).unwrap();
        let gzip = gzip.finish().unwrap();
        [
            ("gzip", gzip.clone()),
            ("X-GZIP", gzip),
            ("deflate", zlib.finish().unwrap()),
            ("deflate", bare.finish().unwrap()),
        ]
    }

    #[test]
    fn every_encoding_is_read_however_it_is_cut() {
        let text: Vec<u8> = (0..60_000_u32).flat_map(|number| (number % 977).to_string().into_bytes()).collect();
        for (encoding, body) in encoded(&text) {
            for piece in [1, 7, 5_000, usize::MAX] {
                assert_eq!(decoded(encoding, &body, piece).as_deref(), Ok(&text[..]), "{encoding} by {piece}");
            }
            assert_eq!(decoded(encoding, b"", 1).as_deref(), Ok(&b""[..]), "{encoding}");
        }
    }

    #[test]
    fn what_is_flushed_comes_at_once() {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(b"data: 1\n\n").unwrap();
        gzip.flush().unwrap();
        let mut decoding = Decoding::of(&headers(header::CONTENT_ENCODING, "gzip")).unwrap().unwrap();
        decoding.push(gzip.get_ref().clone().into());
        assert_eq!(decoding.next().unwrap().as_deref(), Some(&b"data: 1\n\n"[..]));
        assert_eq!(decoding.next().unwrap(), None);
        assert_eq!(decoding.end(), Err(UnreadableEncoding), "it is cut off");
    }

    #[test]
    fn nothing_grows_without_bound_and_nonsense_is_refused() {
        let [(_, bomb), ..] = encoded(&vec![0; 64 * 1024 * 1024]);
        let mut decoding = Decoding::of(&headers(header::CONTENT_ENCODING, "gzip")).unwrap().unwrap();
        decoding.push(bomb.into());
        let mut largest = 0;
        while let Some(more) = decoding.next().unwrap() {
            largest = largest.max(more.len());
        }
        assert!(largest <= MAX_DECODED_BYTES, "{largest}");
        assert_eq!(decoded("gzip", b"{\"id\":1}", 100), Err(UnreadableEncoding));
        for encoding in ["br", "zstd", "gzip, gzip", "nonsense"] {
            assert!(Decoding::of(&headers(header::CONTENT_ENCODING, encoding)).is_err(), "{encoding}");
        }
        for encoding in ["nonsense", "gzip, chunked", "chunked, nonsense", "xchunked"] {
            assert!(Decoding::of(&headers(header::TRANSFER_ENCODING, encoding)).is_err(), "{encoding}");
        }
        for (name, value) in [(header::TRANSFER_ENCODING, "Chunked"), (header::CONTENT_ENCODING, "identity")] {
            assert!(Decoding::of(&headers(name, value)).unwrap().is_none());
        }
    }
}
