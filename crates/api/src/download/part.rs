//! Holds: which part of a file a request asks for (RFC 9110, section 14).

use std::ops::Range;

use http::{
    HeaderMap,
    header::{IF_RANGE, RANGE},
};

/// What is to be sent of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// All of it.
    Whole,
    /// These bytes.
    Bytes(Range<u64>),
    /// It has no such bytes.
    Outside,
}

/// The part that is asked for of a file of `length` bytes that `etag` names. Several ranges at once, other units and
/// what is no range are answered with the whole, as the standard allows.
pub(crate) fn asked(headers: &HeaderMap, etag: &str, length: u64) -> Part {
    let Some(ranges) = headers.get(RANGE).and_then(|value| value.to_str().ok()?.trim().strip_prefix("bytes=")) else {
        return Part::Whole;
    };
    // What the client has may be of another file.
    if headers.get(IF_RANGE).is_some_and(|has| has.as_bytes() != etag.as_bytes()) {
        return Part::Whole;
    }
    let Some((first, last)) = ranges.split_once('-') else { return Part::Whole };
    let (first, last) = (first.trim(), last.trim());
    if !first.bytes().chain(last.bytes()).all(|digit| digit.is_ascii_digit()) {
        return Part::Whole;
    }
    // Digits alone that are no number are one beyond every file.
    let number = |digits: &str| digits.parse().unwrap_or(u64::MAX);
    match (first, last) {
        ("", "") => Part::Whole,
        ("", last) => {
            let tail = number(last).min(length);
            if tail == 0 { Part::Outside } else { Part::Bytes(length - tail..length) }
        }
        (first, last) => {
            let start = number(first);
            let end = if last.is_empty() { length } else { number(last).saturating_add(1).min(length) };
            match () {
                () if start >= length => Part::Outside,
                () if end <= start => Part::Whole,
                () => Part::Bytes(start..end),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of_ten(range: &'static str) -> Part {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, HeaderValue::from_static(range));
        asked(&headers, "\"tag\"", 10)
    }

    #[test]
    fn ranges_are_cut_to_the_file() {
        assert_eq!(of_ten("bytes=0-3"), Part::Bytes(0..4));
        assert_eq!(of_ten("bytes=4-"), Part::Bytes(4..10));
        assert_eq!(of_ten("bytes=9-99"), Part::Bytes(9..10));
        assert_eq!(of_ten("bytes=-3"), Part::Bytes(7..10));
        assert_eq!(of_ten("bytes=-99999999999999999999999"), Part::Bytes(0..10));
        assert_eq!(of_ten("bytes=10-"), Part::Outside);
        assert_eq!(of_ten("bytes=99999999999999999999999-"), Part::Outside);
        assert_eq!(of_ten("bytes=-0"), Part::Outside);
        for no_single_range in ["bytes=3-1", "bytes=0-1,4-5", "bytes=-", "bytes=a-b", "lines=1-2", "bytes=+1-2", "x"] {
            assert_eq!(of_ten(no_single_range), Part::Whole, "{no_single_range}");
        }
        assert_eq!(asked(&HeaderMap::new(), "\"tag\"", 10), Part::Whole);
    }

    #[test]
    fn a_range_of_another_file_is_the_whole_of_this_one() {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, HeaderValue::from_static("bytes=5-"));
        headers.insert(IF_RANGE, HeaderValue::from_static("\"tag\""));
        assert_eq!(asked(&headers, "\"tag\"", 10), Part::Bytes(5..10));
        assert_eq!(asked(&headers, "\"other\"", 10), Part::Whole);
    }
}
