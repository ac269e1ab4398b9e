//! Holds: what counts as an email address and a user's name.

/// RFC 5321's longest address that fits in a path.
const MAX_EMAIL_CHARS: usize = 254;
/// Longest name, in characters.
const MAX_NAME_CHARS: usize = 200;

/// Why a text is no email address or name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidContact {
    /// No address.
    #[error("must be an email address such as ada@example.com, of at most {MAX_EMAIL_CHARS} characters")]
    Email,
    /// No name.
    #[error("must have 1 to {MAX_NAME_CHARS} characters, none of them control characters")]
    Name,
}

/// An address as it is stored: trimmed, lower case. One `@` with something on both sides; no more is asked.
pub fn email(raw: &str) -> Result<String, InvalidContact> {
    // Before blanks are cut off, among which are some control characters.
    if raw.contains(char::is_control) {
        return Err(InvalidContact::Email);
    }
    let email = raw.trim().to_lowercase();
    let is_plain = |part: &str| !part.is_empty() && !part.contains(|c: char| c.is_whitespace() || c.is_control());
    match email.split_once('@') {
        Some((local, domain))
            if email.chars().count() <= MAX_EMAIL_CHARS
                && is_plain(local)
                && is_plain(domain)
                && !domain.contains('@') =>
        {
            Ok(email)
        }
        _ => Err(InvalidContact::Email),
    }
}

/// A name as it is stored: trimmed.
pub fn name(raw: &str) -> Result<String, InvalidContact> {
    let name = raw.trim();
    let fits = (1..=MAX_NAME_CHARS).contains(&name.chars().count());
    if fits && !raw.contains(char::is_control) { Ok(name.to_owned()) } else { Err(InvalidContact::Name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emails_are_trimmed_lowered_and_checked() {
        assert_eq!(email(" Ada@Example.COM "), Ok("ada@example.com".to_owned()));
        for wrong in
            ["", "ada", "@example.com", "ada@", "a@b@c", "a b@c", "a\u{0}@c", &format!("{}@b", "a".repeat(300))]
        {
            assert_eq!(email(wrong), Err(InvalidContact::Email), "{wrong}");
        }
        assert_eq!(name(" Ada "), Ok("Ada".to_owned()));
        assert_eq!(name(" "), Err(InvalidContact::Name));
        assert_eq!(name("a\nb"), Err(InvalidContact::Name));
        assert_eq!((name("a\n"), email("a@b\n")), (Err(InvalidContact::Name), Err(InvalidContact::Email)));
    }
}
