//! Holds: a form with files in it, as `multipart/form-data` (RFC 7578).

/// A form that is being filled in.
pub(crate) struct Form {
    boundary: String,
    body: Vec<u8>,
}

impl Form {
    /// `unique` is in none of the values: a random id.
    pub(crate) fn new(unique: &str) -> Self {
        Self { boundary: format!("batchin-{unique}"), body: Vec::new() }
    }

    /// With a field of text.
    pub(crate) fn field(self, name: &str, value: &str) -> Self {
        self.part(&format!("name=\"{name}\""), None, value.as_bytes())
    }

    /// With a file. Neither name is anybody's own words.
    pub(crate) fn file(self, name: &str, file_name: &str, bytes: &[u8]) -> Self {
        let kind = Some("application/octet-stream");
        self.part(&format!("name=\"{name}\"; filename=\"{file_name}\""), kind, bytes)
    }

    fn part(mut self, named: &str, content_type: Option<&str>, value: &[u8]) -> Self {
        let mut head = format!("--{}\r\nContent-Disposition: form-data; {named}\r\n", self.boundary);
        if let Some(kind) = content_type {
            head.push_str(&format!("Content-Type: {kind}\r\n"));
        }
        head.push_str("\r\n");
        self.body.extend_from_slice(head.as_bytes());
        self.body.extend_from_slice(value);
        self.body.extend_from_slice(b"\r\n");
        self
    }

    /// Its media type and its bytes.
    pub(crate) fn end(mut self) -> (String, Vec<u8>) {
        self.body.extend_from_slice(format!("--{}--\r\n", self.boundary).as_bytes());
        (format!("multipart/form-data; boundary={}", self.boundary), self.body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_back() {
        let (kind, body) = Form::new("x").field("a", "\u{4f60}\r\n--").file("f", "f.wav", b"\0\r\n\xff").end();
        let boundary = multer::parse_boundary(&kind).unwrap();
        let body = bytes::Bytes::from(body);
        let read = async {
            let stream = futures::stream::iter([Ok::<_, std::io::Error>(body)]);
            let mut form = multer::Multipart::new(stream, boundary);
            let mut parts = Vec::new();
            while let Some(field) = form.next_field().await.unwrap() {
                let named = (field.name().unwrap().to_owned(), field.file_name().map(str::to_owned));
                parts.push((named, field.bytes().await.unwrap().to_vec()));
            }
            parts
        };
        let parts = futures::executor::block_on(read);
        let expected = [
            (("a".to_owned(), None), "\u{4f60}\r\n--".as_bytes().to_vec()),
            (("f".to_owned(), Some("f.wav".to_owned())), b"\0\r\n\xff".to_vec()),
        ];
        assert_eq!(parts, expected);
    }
}
