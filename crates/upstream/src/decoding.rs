//! Holds: bodies that come compressed, decoded as they are read: what clients send, and what model servers answer although
//! nobody asked them to.
//!
//! A body is bounded by whoever reads it, who gets it piece by piece; here only the memory that decoding takes is.

use std::io;

use async_compression::{
    tokio::bufread::{BrotliDecoder, DeflateDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder},
    zstd::DParameter,
};
use bytes::Bytes;
use futures::{
    Stream, StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};
use http::{HeaderMap, header::CONTENT_ENCODING};
use tokio::io::{AsyncBufReadExt as _, AsyncRead};
use tokio_util::io::{ReaderStream, StreamReader};

/// What is decoded at a time, in bytes: whoever reads looks at its limit after each such piece.
const PIECE_BYTES: usize = 64 * 1024;

/// The largest zstd window, as a power of two: eight megabytes, which RFC 8878 recommends and all encoders keep to unless
/// told otherwise. What states more could take 128 MB a body.
const MAX_ZSTD_WINDOW: u32 = 23;

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// `gzip`, also called `x-gzip`
    Gzip,
    /// `deflate`
    Deflate,
    /// `br`
    Brotli,
    /// `zstd`
    Zstd,
}

/// A `content-encoding` that is not known, or more than one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the content-encoding is not known")]
pub struct UnknownCoding;

impl Coding {
    /// All of them, as `accept-encoding` has them.
    pub const NAMES: &'static str = "gzip, deflate, br, zstd";

    /// How the headers say that the body is compressed; `None` where it comes as it is.
    pub fn of(headers: &HeaderMap) -> Result<Option<Self>, UnknownCoding> {
        let mut found = None;
        for value in headers.get_all(CONTENT_ENCODING) {
            let name = value.to_str().map_err(|_| UnknownCoding)?.trim().to_ascii_lowercase();
            let coding = match name.as_str() {
                "" | "identity" => continue,
                "gzip" | "x-gzip" => Self::Gzip,
                "deflate" => Self::Deflate,
                "br" => Self::Brotli,
                "zstd" => Self::Zstd,
                _ => return Err(UnknownCoding),
            };
            // Nobody encodes twice.
            if found.replace(coding).is_some() {
                return Err(UnknownCoding);
            }
        }
        Ok(found)
    }

    /// The body as it was before it was compressed. What has been flushed into it comes without waiting for more; one that
    /// ends too early, or is not what it says, ends in an error. Errors of the body come as they are.
    pub fn decoded(
        self,
        body: impl Stream<Item = io::Result<Bytes>> + Send + Unpin + 'static,
    ) -> BoxStream<'static, io::Result<Bytes>> {
        // Several frames are one text, as RFC 8878 has it and as gzip's own tool does; looking for the next one also reads
        // the body to its end.
        macro_rules! all_frames {
            ($decoder:expr) => {{
                let mut decoder = $decoder;
                decoder.multiple_members(true);
                pieces(decoder)
            }};
        }
        let mut raw = StreamReader::new(body);
        match self {
            Self::Gzip => all_frames!(GzipDecoder::new(raw)),
            Self::Brotli => all_frames!(BrotliDecoder::new(raw)),
            Self::Zstd => {
                all_frames!(ZstdDecoder::with_params(raw, &[DParameter::window_log_max(MAX_ZSTD_WINDOW)]))
            }
            Self::Deflate => stream::once(async move {
                // As RFC 1950 has it, it begins with its method, 8. Some send it bare.
                let is_bare = raw.fill_buf().await?.first().is_some_and(|first| first & 0x0f != 8);
                Ok::<_, io::Error>(if is_bare {
                    all_frames!(DeflateDecoder::new(raw))
                } else {
                    all_frames!(ZlibDecoder::new(raw))
                })
            })
            .try_flatten()
            .boxed(),
        }
    }
}

fn pieces(reader: impl AsyncRead + Send + 'static) -> BoxStream<'static, io::Result<Bytes>> {
    ReaderStream::with_capacity(reader, PIECE_BYTES).boxed()
}

#[cfg(test)]
mod tests {
    use async_compression::{
        Level,
        tokio::write::{BrotliEncoder, DeflateEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder},
    };
    use futures::FutureExt as _;
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    const ALL: [&str; 6] = ["gzip", "X-GZIP", "deflate", "deflate, bare", "br", "zstd"];

    fn named(encoding: &str) -> Result<Option<Coding>, UnknownCoding> {
        let name = encoding.trim_end_matches(", bare");
        Coding::of(&HeaderMap::from_iter([(CONTENT_ENCODING, name.parse().unwrap())]))
    }

    /// What has been written once each of the pieces is flushed, and all of it.
    async fn encoded(encoding: &str, pieces: &[&[u8]]) -> (Vec<u8>, Vec<u8>) {
        macro_rules! by {
            ($encoder:ident) => {{
                let mut encoder = $encoder::with_quality(Vec::new(), Level::Fastest);
                for piece in pieces {
                    encoder.write_all(piece).await.unwrap();
                    encoder.flush().await.unwrap();
                }
                let flushed = encoder.get_ref().clone();
                encoder.shutdown().await.unwrap();
                (flushed, encoder.into_inner())
            }};
        }
        match encoding {
            "deflate" => by!(ZlibEncoder),
            "deflate, bare" => by!(DeflateEncoder),
            "br" => by!(BrotliEncoder),
            "zstd" => by!(ZstdEncoder),
            _ => by!(GzipEncoder),
        }
    }

    fn decoding(encoding: &str, body: &[u8], piece: usize) -> BoxStream<'static, io::Result<Bytes>> {
        let pieces: Vec<_> = body.chunks(piece).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        named(encoding).unwrap().unwrap().decoded(stream::iter(pieces))
    }

    async fn decoded(encoding: &str, body: &[u8], piece: usize) -> io::Result<Vec<u8>> {
        decoding(encoding, body, piece).map_ok(|bytes| bytes.to_vec()).try_concat().await
    }

    #[tokio::test]
    async fn every_encoding_is_read_however_it_is_cut() {
        let text: Vec<u8> = (0..60_000_u32).flat_map(|number| (number % 977).to_string().into_bytes()).collect();
        for encoding in ALL {
            let (_, body) = encoded(encoding, &[&text]).await;
            for piece in [1, 7, 5_000, usize::MAX] {
                assert!(decoded(encoding, &body, piece).await.unwrap() == text, "{encoding} by {piece}");
            }
            let twice = decoded(encoding, &[body.clone(), body].concat(), 999).await.unwrap();
            assert!(twice == [&text[..], &text].concat(), "{encoding} of two frames");
        }
    }

    #[tokio::test]
    async fn what_is_flushed_comes_at_once_and_what_is_cut_off_is_an_error() {
        for encoding in ALL {
            let (flushed, _) = encoded(encoding, &[b"data: 1\n\n"]).await;
            let head = stream::iter([Ok(Bytes::from(flushed.clone()))]);
            let mut open = named(encoding).unwrap().unwrap().decoded(head.chain(stream::pending()));
            let first = open.next().now_or_never().flatten();
            assert_eq!(first.unwrap().unwrap(), "data: 1\n\n", "{encoding}");
            assert!(open.next().now_or_never().is_none(), "{encoding}");
            assert!(decoded(encoding, &flushed, usize::MAX).await.is_err(), "{encoding}");
        }
    }

    #[tokio::test]
    async fn nothing_grows_without_bound_and_nonsense_is_refused() {
        let zeros = vec![0; 16 * 1024 * 1024];
        for encoding in ALL {
            let (_, bomb) = encoded(encoding, &[&zeros]).await;
            assert!(bomb.len() < 1_000_000, "{encoding}");
            let mut pieces = decoding(encoding, &bomb, usize::MAX);
            let mut all = 0;
            while let Some(piece) = pieces.next().await {
                let piece = piece.unwrap();
                assert!(piece.len() <= PIECE_BYTES, "{encoding}");
                all += piece.len();
            }
            assert_eq!(all, zeros.len(), "{encoding}");
            assert!(decoded(encoding, b"{\"id\":1}", 100).await.is_err(), "{encoding}");
        }
        for encoding in ["gzip, gzip", "nonsense", "\u{e9}"] {
            assert_eq!(named(encoding), Err(UnknownCoding), "{encoding}");
        }
        let twice = ["gzip", "br"].map(|value| (CONTENT_ENCODING, value.parse().unwrap()));
        assert_eq!(Coding::of(&twice.into_iter().collect()), Err(UnknownCoding));
        for plain in ["identity", "", " Identity "] {
            assert_eq!(named(plain), Ok(None), "{plain}");
        }
        for name in Coding::NAMES.split(", ") {
            assert!(named(name).is_ok_and(|coding| coding.is_some()), "{name}");
        }
    }

    #[tokio::test]
    async fn a_body_s_own_error_comes_as_it_is() {
        for encoding in ALL {
            let (flushed, _) = encoded(encoding, &[b"data: 1\n\n"]).await;
            let broken = stream::iter([Ok(Bytes::from(flushed)), Err(io::ErrorKind::ConnectionReset.into())]);
            let read = named(encoding).unwrap().unwrap().decoded(broken);
            let error = read.try_for_each(|_| async { Ok(()) }).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{encoding}");
        }
    }
}
