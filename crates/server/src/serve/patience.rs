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

use super::connections::Place;

/// What an HTTP/2 connection begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection that ends when its other side takes nothing, or never says what it speaks.
///
/// Until that is known, no protocol has a time of its own; HTTP/1.1's time for headers begins with the first byte of a request, and a stalled HTTP/1.1 answer has none: whoever
/// writes it is not asked again before there is room.
pub(super) struct Patient<T> {
    io: T,
    for_first: Duration,
    for_room: Duration,
    /// Bytes of HTTP/2's preface that were read; `None` once it is known whether it comes.
    preface: Option<usize>,
    /// Runs while the other side is waited for.
    reading: Option<Pin<Box<Sleep>>>,
    writing: Option<Pin<Box<Sleep>>>,
    /// Its place among all connections.
    place: Option<Place>,
    /// It is closed then, whatever goes on.
    ends: Option<Pin<Box<Sleep>>>,
}

impl<T> Patient<T> {
    /// `for_first`: until it is known which protocol is spoken. `for_room`: until more can be written.
    pub(super) fn new(io: T, for_first: Duration, for_room: Duration) -> Self {
        let (reading, writing, place, ends) = (None, None, None, None);
        Self { io, for_first, for_room, preface: Some(0), reading, writing, place, ends }
    }

    /// This place is free again when the connection is gone.
    pub(super) fn on(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// It is read from for no longer than this.
    pub(super) fn for_at_most(mut self, time: Duration) -> Self {
        self.ends = Some(Box::pin(sleep(time)));
        self
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
        if this.ends.as_mut().is_some_and(|ends| ends.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = into.filled().len();
        let polled = Pin::new(&mut this.io).poll_read(cx, into);
        let Some(known) = this.preface else { return polled };
        if polled.is_ready() {
            let read = into.filled().get(before..).unwrap_or_default();
            let may_come = PREFACE.get(known..).filter(|rest| read.len() < rest.len() && rest.starts_with(read));
            this.preface = may_come.map(|_| known + read.len());
            if this.preface.is_none() {
                this.reading = None;
            }
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
    async fn who_has_a_certain_time_has_no_more() {
        let (ours, mut theirs) = duplex(16);
        let mut ours = Patient::new(ours, LONG, LONG).for_at_most(SHORT);
        theirs.write_all(b"GET").await.unwrap();
        assert_eq!(ours.read_u8().await.unwrap(), b'G');
        let ended = ours.read_to_end(&mut Vec::new()).await;
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn who_does_not_say_what_it_speaks_is_cut_off() {
        let after = async |said: &[u8]| {
            let (ours, mut theirs) = duplex(64);
            let mut ours = Patient::new(ours, SHORT, LONG);
            for byte in said {
                theirs.write_u8(*byte).await.unwrap();
                assert_eq!(ours.read_u8().await.unwrap(), *byte);
            }
            let read = tokio::time::timeout(SHORT * 3, ours.read_u8()).await;
            read.map(|read| read.unwrap_err().kind())
        };
        assert_eq!(after(&PREFACE[..5]).await, Ok(io::ErrorKind::TimedOut));
        assert_eq!(after(&PREFACE[..23]).await, Ok(io::ErrorKind::TimedOut));
        for known in [PREFACE, b"PRINT", b"GET / HTTP/1.1"] {
            assert!(after(known).await.is_err(), "it waits on");
        }
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
