//! Holds: a stream whose small writes of several pieces are one piece.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most bytes that are copied together: the head and the body of most requests and answers.
const TOGETHER: usize = 4_096;

/// Sends a head and a small body as one piece: copying both costs less than the kernel's handling of a list of pieces.
/// Larger writes pass through, uncopied.
#[derive(Debug)]
pub struct Gathered<T>(pub T);

impl<T: AsyncRead + Unpin> AsyncRead for Gathered<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Gathered<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut together = [0; TOGETHER];
        let mut length = 0;
        for piece in pieces {
            let Some(place) = together.get_mut(length..length + piece.len()) else {
                return Pin::new(&mut self.0).poll_write_vectored(cx, pieces);
            };
            place.copy_from_slice(piece);
            length += piece.len();
        }
        Pin::new(&mut self.0).poll_write(cx, &together[..length])
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// Takes everything and notes how.
    #[derive(Default)]
    struct Noted {
        written: Vec<u8>,
        writes: Vec<&'static str>,
    }

    impl AsyncWrite for Noted {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.writes.push("one");
            self.written.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            pieces: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.writes.push("list");
            pieces.iter().for_each(|piece| self.written.extend_from_slice(piece));
            Poll::Ready(Ok(pieces.iter().map(|piece| piece.len()).sum()))
        }

        fn is_write_vectored(&self) -> bool {
            true
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[track_caller]
    fn check(head: usize, body: usize, how: &'static str) {
        let (head, body) = (vec![b'h'; head], vec![b'b'; body]);
        let mut stream = Gathered(Noted::default());
        assert!(stream.is_write_vectored());
        let written = futures::executor::block_on(stream.write_vectored(&[IoSlice::new(&head), IoSlice::new(&body)]));
        assert_eq!(written.unwrap(), head.len() + body.len());
        assert_eq!(stream.0.written, [head, body].concat());
        assert_eq!(stream.0.writes, [how]);
    }

    #[test]
    fn small_pieces_go_together_and_large_ones_as_they_are() {
        check(300, 1_024, "one");
        check(300, 0, "one");
        check(96, TOGETHER - 96, "one");
        check(97, TOGETHER - 96, "list");
        check(TOGETHER + 1, 1, "list");
        check(300, 1 << 20, "list");
    }
}
