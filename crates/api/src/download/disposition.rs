//! Holds: a file's name in `content-disposition` (RFC 6266), whatever characters it has.

use std::fmt::Write as _;

use http::HeaderValue;

/// `attachment` with this name: as it is where that is safe, and beside an ASCII likeness where it is not.
pub(crate) fn attachment(filename: &str) -> HeaderValue {
    let is_plain = |c: char| matches!(c, ' '..='~') && !matches!(c, '"' | '\\' | '%');
    let likeness: String = filename.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    let mut text = format!("attachment; filename=\"{likeness}\"");
    if likeness != filename {
        text.push_str("; filename*=UTF-8''");
        for byte in filename.bytes() {
            // attr-char of RFC 5987.
            if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte) {
                text.push(char::from(byte));
            } else {
                // Writing to a String cannot fail.
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("attachment"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_quotes() {
        let check = |name: &str, expected: &str| assert_eq!(attachment(name).to_str().ok(), Some(expected), "{name}");
        check("in put.jsonl", "attachment; filename=\"in put.jsonl\"");
        check(
            "a\"; filename=\"b\\.sh",
            "attachment; filename=\"a_; filename=_b_.sh\"; filename*=UTF-8''a%22%3B%20filename%3D%22b%5C.sh",
        );
        check("grün 100%.txt", "attachment; filename=\"gr_n 100_.txt\"; filename*=UTF-8''gr%C3%BCn%20100%25.txt");
        check("a\r\nb", "attachment; filename=\"a__b\"; filename*=UTF-8''a%0D%0Ab");
    }
}
