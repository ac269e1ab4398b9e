//! Holds: a file that goes along with a call, and the form in which it goes.
//!
//! The file lies on the disk, or in memory where it came inside of a body. It is read as it is sent, a piece at a time, and
//! as often as servers are asked.

use std::{
    collections::VecDeque,
    fmt, fs, io,
    ops::ControlFlow,
    os::unix::fs::FileExt as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use batchin_openai::each_member;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use serde_json::value::RawValue;
use tokio::task::{JoinHandle, spawn_blocking};

/// What is read of a file at a time: enough that threads are seldom asked, little in memory.
const PIECE_BYTES: usize = 256 * 1024;

/// A file that goes along with a call.
pub struct Upload {
    /// The field of a form that it is.
    pub field: &'static str,
    /// Its bytes.
    pub content: Content,
    /// Its name, without a folder and without characters that are not seen.
    pub name: String,
    /// Its media type, as a header may have it.
    pub content_type: String,
}

/// Where a file's bytes are.
pub enum Content {
    /// On the disk.
    File {
        /// Open for reading; nobody writes to it any more.
        file: fs::File,
        /// How long it is.
        bytes: u64,
    },
    /// In memory.
    Memory(Bytes),
}

/// A file's bytes, from any place on. Reading blocks where they are on the disk.
#[derive(Debug)]
pub struct UploadReader {
    upload: Arc<Upload>,
    at: u64,
}

impl Upload {
    /// How many bytes it has.
    pub fn bytes(&self) -> u64 {
        match &self.content {
            Content::File { bytes, .. } => *bytes,
            Content::Memory(bytes) => bytes.len() as u64,
        }
    }

    /// Reads it from the beginning.
    pub fn reader(self: &Arc<Self>) -> UploadReader {
        UploadReader { upload: Arc::clone(self), at: 0 }
    }
}

/// The name and the bytes are a customer's and stay out of debug prints.
impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

impl io::Read for UploadReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match &self.upload.content {
            Content::File { file, .. } => file.read_at(buffer, self.at)?,
            Content::Memory(bytes) => {
                let from = usize::try_from(self.at).unwrap_or(usize::MAX).min(bytes.len());
                let rest = bytes.get(from..).unwrap_or_default();
                let count = rest.len().min(buffer.len());
                let (to, piece) = (buffer.get_mut(..count), rest.get(..count));
                to.zip(piece).map_or(0, |(to, piece)| {
                    to.copy_from_slice(piece);
                    count
                })
            }
        };
        self.at = self.at.saturating_add(read as u64);
        Ok(read)
    }
}

impl io::Seek for UploadReader {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        let place = match to {
            io::SeekFrom::Start(at) => Some(at),
            io::SeekFrom::End(by) => self.upload.bytes().checked_add_signed(by),
            io::SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = place.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

/// What is sent to a server: the bytes of a body, or a form with files.
pub(crate) enum SentBody {
    /// As nearly all are.
    Whole(Full<Bytes>),
    /// Members and files.
    Form(Box<Form>),
}

/// A form on its way.
pub(crate) struct Form {
    /// What is to be sent, in order: a file behind what stands before it.
    files: VecDeque<(Bytes, Arc<Upload>)>,
    /// Where in the first of them the next piece begins.
    at: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
    /// What stands behind the last, until it is sent.
    tail: Bytes,
}

impl SentBody {
    pub(crate) fn of(bytes: Bytes) -> Self {
        Self::Whole(Full::new(bytes))
    }

    /// The members of a JSON body as fields of a form, the files behind them. No line of a file is `boundary`.
    pub(crate) fn form(members: &[u8], uploads: &[Arc<Upload>], boundary: &str) -> Self {
        let mut before = fields(members, boundary);
        let files = uploads.iter().map(|upload| {
            let (field, name, content_type) = (upload.field, escaped(&upload.name), &upload.content_type);
            let mut head = std::mem::replace(&mut before, "\r\n".to_owned());
            head.push_str(&format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"{field}\"; filename=\"{name}\"\r\n\
                 Content-Type: {content_type}\r\n\r\n"
            ));
            (head.into(), Arc::clone(upload))
        });
        let files = files.collect();
        let tail = format!("{before}--{boundary}--\r\n").into();
        Self::Form(Box::new(Form { files, at: 0, reading: None, tail }))
    }
}

/// Each member of an object as a field; of a list each item as one.
fn fields(members: &[u8], boundary: &str) -> String {
    let mut form = String::new();
    let mut field = |name: &str, value: &str| {
        let name = escaped(name);
        let disposition = format!("Content-Disposition: form-data; name=\"{name}\"");
        form.push_str(&format!("--{boundary}\r\n{disposition}\r\n\r\n{value}\r\n"));
    };
    let listed = each_member(std::str::from_utf8(members).unwrap_or_default(), |name, value| {
        match serde_json::from_str::<Vec<&RawValue>>(value.get()) {
            Ok(items) => {
                let name = if name.ends_with("[]") { name } else { format!("{name}[]").into() };
                items.iter().for_each(|item| field(&name, &plain(item)));
            }
            Err(_) if value.get() == "null" => {}
            Err(_) => field(&name, &plain(value)),
        }
        ControlFlow::Continue(())
    });
    // It was read as an object before.
    drop(listed);
    form
}

/// A text without its quotes; everything else as it is in JSON.
fn plain(value: &RawValue) -> String {
    serde_json::from_str(value.get()).unwrap_or_else(|_| value.get().to_owned())
}

/// As browsers write names into a header.
fn escaped(name: &str) -> String {
    name.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A")
}

impl Form {
    fn left(&self) -> u64 {
        let each = |(head, upload): &(Bytes, Arc<Upload>)| (head.len() as u64).saturating_add(upload.bytes());
        let files: u64 = self.files.iter().map(each).sum();
        files.saturating_sub(self.at).saturating_add(self.tail.len() as u64)
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        while self.files.front().is_some_and(|(head, upload)| head.is_empty() && self.at >= upload.bytes()) {
            self.files.pop_front();
            self.at = 0;
        }
        let Some((head, upload)) = self.files.front_mut() else {
            let tail = std::mem::take(&mut self.tail);
            return Poll::Ready((!tail.is_empty()).then_some(Ok(tail)));
        };
        if !head.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(head))));
        }
        if let Content::Memory(bytes) = &upload.content {
            self.at = bytes.len() as u64;
            return Poll::Ready(Some(Ok(bytes.clone())));
        }
        let at = self.at;
        let reading = self.reading.get_or_insert_with(|| {
            let upload = Arc::clone(upload);
            spawn_blocking(move || piece(&upload, at))
        });
        let read = ready!(Pin::new(reading).poll(cx));
        self.reading = None;
        // The runtime ends.
        let read = read.unwrap_or_else(|_| Err(io::ErrorKind::Interrupted.into()));
        Poll::Ready(Some(read.inspect(|piece| self.at = self.at.saturating_add(piece.len() as u64))))
    }
}

fn piece(upload: &Upload, at: u64) -> io::Result<Bytes> {
    let Content::File { file, bytes } = &upload.content else { return Ok(Bytes::new()) };
    let left = usize::try_from(bytes.saturating_sub(at)).unwrap_or(usize::MAX);
    let mut piece = vec![0; left.min(PIECE_BYTES)];
    file.read_exact_at(&mut piece, at)?;
    Ok(piece.into())
}

impl Body for SentBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Self::Form(form) => form.poll_piece(cx).map_ok(Frame::data),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Form(form) => form.left() == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Form(form) => SizeHint::with_exact(form.left()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _, SeekFrom, Write as _};

    use http_body_util::BodyExt as _;

    use super::*;

    fn upload(content: Content) -> Arc<Upload> {
        Arc::new(Upload { field: "file", content, name: "a \"b\".wav".into(), content_type: "audio/wav".into() })
    }

    fn on_disk(bytes: &[u8]) -> Content {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Content::File { file, bytes: bytes.len() as u64 }
    }

    #[tokio::test]
    async fn members_and_file_are_fields_of_a_form() {
        let members =
            br#"{"model":"m","prompt":"a\nb","temperature":0.5,"stream":true,"x[]":["c",1],"y":["d"],"z":null}"#;
        let field = |name: &str, value: &str| {
            format!("--B\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        let fields = [
            ("model", "m"),
            ("prompt", "a\nb"),
            ("temperature", "0.5"),
            ("stream", "true"),
            ("x[]", "c"),
            ("x[]", "1"),
            ("y[]", "d"),
        ];
        let mut expected = fields.map(|(name, value)| field(name, value)).concat();
        expected.push_str("--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a %22b%22.wav\"\r\nContent-Type: audio/wav\r\n\r\nsound\r\n--B--\r\n");
        for content in [on_disk(b"sound"), Content::Memory(Bytes::from_static(b"sound"))] {
            let form = SentBody::form(members, &[upload(content)], "B");
            assert_eq!(form.size_hint().exact(), Some(expected.len() as u64));
            assert_eq!(form.collect().await.unwrap().to_bytes(), expected);
        }
    }

    #[tokio::test]
    async fn several_files_are_fields_one_behind_another() {
        let file =
            |field, content| Arc::new(Upload { field, content, name: "a".into(), content_type: "image/png".into() });
        let files = [
            file("image[]", on_disk(b"one")),
            file("image[]", Content::Memory(Bytes::from_static(b"two"))),
            file("mask", Content::Memory(Bytes::new())),
        ];
        let field = |name: &str, bytes: &str| {
            format!(
                "--B\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"a\"\r\nContent-Type: image/png\r\n\r\n{bytes}\r\n"
            )
        };
        let expected =
            [field("image[]", "one"), field("image[]", "two"), field("mask", ""), "--B--\r\n".to_owned()].concat();
        let form = SentBody::form(b"{}", &files, "B");
        assert_eq!(form.size_hint().exact(), Some(expected.len() as u64));
        assert_eq!(form.collect().await.unwrap().to_bytes(), expected);
    }

    #[tokio::test]
    async fn a_file_is_sent_in_pieces_and_as_often_as_asked() {
        let bytes: Vec<u8> = (0..PIECE_BYTES * 2 + 5).map(|at| (at % 251) as u8).collect();
        let file = upload(on_disk(&bytes));
        for _ in 0..2 {
            let mut form = SentBody::form(b"{}", std::slice::from_ref(&file), "B");
            let mut sizes = Vec::new();
            while let Some(frame) = form.frame().await {
                sizes.push(frame.unwrap().into_data().unwrap().len());
            }
            assert_eq!(sizes[1..4], [PIECE_BYTES, PIECE_BYTES, 5]);
            assert!(form.is_end_stream());
        }
    }

    #[tokio::test]
    async fn a_file_that_became_shorter_breaks_the_call() {
        let Content::File { file, .. } = on_disk(b"short") else { unreachable!() };
        let form = SentBody::form(b"{}", &[upload(Content::File { file, bytes: 6 })], "B");
        assert!(form.collect().await.is_err());
    }

    #[test]
    fn a_file_is_read_from_any_place() {
        for content in [on_disk(b"0123456789"), Content::Memory(Bytes::from_static(b"0123456789"))] {
            let mut reader = upload(content).reader();
            let mut read = String::new();
            reader.seek(SeekFrom::End(-3)).unwrap();
            reader.read_to_string(&mut read).unwrap();
            reader.seek(SeekFrom::Start(1)).unwrap();
            reader.by_ref().take(2).read_to_string(&mut read).unwrap();
            reader.seek(SeekFrom::Current(100)).unwrap();
            assert_eq!((read.as_str(), reader.read(&mut [0; 4]).unwrap()), ("78912", 0));
            assert!(reader.seek(SeekFrom::Current(-1_000)).is_err());
        }
    }
}
