//! Holds: how long a connection may do nothing where its server waits for it.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// A connection that ends when its other side takes nothing, or never says anything.
///
/// HTTP/1.1's own time for headers begins with the first byte of a request, and a stalled HTTP/1.1 answer has none: whoever
/// writes it is not asked again before there is room.
pub(super) struct Patient<T> {
    io: T,
    for_first: Duration,
    for_room: Duration,
    /// Nothing was read yet.
    is_silent: bool,
    /// Runs while the other side is waited for.
    reading: Option<Pin<Box<Sleep>>>,
    writing: Option<Pin<Box<Sleep>>>,
}

impl<T> Patient<T> {
    /// `for_first`: until the first byte is read. `for_room`: until more can be written.
    pub(super) fn new(io: T, for_first: Duration, for_room: Duration) -> Self {
        Self { io, for_first, for_room, is_silent: true, reading: None, writing: None }
    }

    /// Ready once the other side has been waited for as long as it is worth.
    fn wrote<R>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        match polled {
            Poll::Ready(result) => {
                self.writing = None;
                Poll::Ready(result)
            }
            Poll::Pending => {
                let patience = self.for_room;
                let writing = self.writing.get_or_insert_with(|| Box::pin(sleep(patience)));
                writing.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Patient<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_read(cx, into);
        if !this.is_silent {
            return polled;
        }
        if polled.is_ready() {
            (this.is_silent, this.reading) = (false, None);
            return polled;
        }
        let patience = this.for_first;
        let reading = this.reading.get_or_insert_with(|| Box::pin(sleep(patience)));
        reading.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Patient<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_write(cx, bytes);
        this.wrote(cx, polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_write_vectored(cx, pieces);
        this.wrote(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn who_says_nothing_and_who_takes_nothing_is_cut_off() {
        let (ours, _theirs) = duplex(16);
        let silent = Patient::new(ours, SHORT, LONG).read_u8().await;
        assert_eq!(silent.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let (ours, _theirs) = duplex(16);
        let full = Patient::new(ours, LONG, SHORT).write_all(&[0; 17]).await;
        assert_eq!(full.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn who_has_spoken_may_be_silent_and_who_reads_slowly_may_go_on() {
        let (ours, mut theirs) = duplex(16);
        let mut ours = Patient::new(ours, SHORT, SHORT * 10);
        theirs.write_u8(7).await.unwrap();
        assert_eq!(ours.read_u8().await.unwrap(), 7);
        assert!(tokio::time::timeout(SHORT * 3, ours.read_u8()).await.is_err(), "it waits on");
        let reading = async {
            let mut taken = [0; 16];
            for _ in 0..20 {
                tokio::time::sleep(SHORT).await;
                theirs.read_exact(&mut taken).await.unwrap();
            }
        };
        let all = [0; 16 * 20];
        let (written, ()) = tokio::join!(ours.write_all(&all), reading);
        written.unwrap();
    }
}
