//! Holds: which URLs and addresses events may be sent to.
//!
//! A customer names the URL, so whoever sends is a way into the operator's network unless these rules hold. A URL is
//! read here once, by the parser that the HTTP client uses too, so that the two never see different hosts.

use std::net::IpAddr;

use ipnet::IpNet;
use url::Host;
pub use url::Url;

use crate::webhook::is_public;

/// Longest URL, in bytes.
pub const MAX_URL_BYTES: usize = 2_048;

/// What the place of an event begins with that goes by e-mail.
const MAIL: &str = "mailto:";

/// Ports below this one belong to the system's services; of them only those of HTTP are used.
const FIRST_FREE_PORT: u16 = 1_024;
const HTTP_PORTS: [u16; 2] = [80, 443];
/// Services at higher ports that a request may be mistaken for one of their own: those that browsers refuse (the Fetch
/// standard's bad ports), Redis and memcached.
const BAD_PORTS: [u16; 22] = [
    1_719, 1_720, 1_723, 2_049, 3_659, 4_045, 4_190, 5_060, 5_061, 6_000, 6_379, 6_566, 6_665, 6_666, 6_667, 6_668,
    6_669, 6_679, 6_697, 10_080, 11_211, 11_212,
];

/// Where events may go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetPolicy {
    /// Whether `http` is good enough.
    pub allow_http: bool,
    /// Networks that are open whatever else is said.
    pub allow: Vec<IpNet>,
    /// The operator's own public addresses.
    pub own: Vec<IpNet>,
}

/// Why nothing can be sent to a URL. The text completes "`webhook_url` …".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetFault {
    /// It is too long.
    #[error("must have at most {MAX_URL_BYTES} bytes")]
    TooLong,
    /// It cannot be read.
    #[error("is not a URL such as https://example.com/hook")]
    NotUrl,
    /// It is not HTTPS.
    #[error("must begin with https://")]
    NotHttps,
    /// It is neither HTTP nor HTTPS.
    #[error("must begin with https:// or http://")]
    NotHttp,
    /// It carries a name or password.
    #[error("must not carry a user name or password; check the signature in place of it")]
    Credentials,
    /// The port is one that nothing is sent to.
    #[error("must not use port {0}")]
    Port(u16),
    /// The host is an address that nothing is sent to.
    #[error("must not point to a private or special address")]
    Address,
}

impl TargetPolicy {
    /// Whether a connection to this address is allowed.
    pub fn permits(&self, address: IpAddr) -> bool {
        let within = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&address));
        within(&self.allow) || (is_public(address) && !within(&self.own))
    }

    /// Reads a URL, and refuses what can never be delivered to. A host that is a name is judged when it is resolved.
    pub fn check(&self, text: &str) -> Result<Url, TargetFault> {
        if text.len() > MAX_URL_BYTES {
            return Err(TargetFault::TooLong);
        }
        // The parser passes over such characters; whoever reads the URL elsewhere may not.
        if text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\\') {
            return Err(TargetFault::NotUrl);
        }
        let url = Url::parse(text).map_err(|_| TargetFault::NotUrl)?;
        match url.scheme() {
            "https" => {}
            "http" if self.allow_http => {}
            _ if self.allow_http => return Err(TargetFault::NotHttp),
            _ => return Err(TargetFault::NotHttps),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(TargetFault::Credentials);
        }
        let port = url.port_or_known_default().unwrap_or_default();
        if (port < FIRST_FREE_PORT && !HTTP_PORTS.contains(&port)) || BAD_PORTS.contains(&port) {
            return Err(TargetFault::Port(port));
        }
        let literal = match url.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            Some(Host::Domain(_)) => None,
            None => return Err(TargetFault::NotUrl),
        };
        if literal.is_some_and(|address| !self.permits(address)) {
            return Err(TargetFault::Address);
        }
        Ok(url)
    }
}

/// The place of an event that goes by e-mail.
pub fn mail_to(address: &str) -> String {
    format!("{MAIL}{address}")
}

/// The address of an event's place, where it goes by e-mail. No webhook's URL can be one, since it begins with `http`.
pub fn mail_address(place: &str) -> Option<&str> {
    place.strip_prefix(MAIL)
}

/// The server that a URL leads to: scheme, host and port. A text that is no URL is its own.
pub fn origin(text: &str) -> String {
    Url::parse(text).map_or_else(|_| text.to_owned(), |url| url.origin().ascii_serialization())
}

/// A URL as it may be shown: without credentials, and without its query, where tokens stand.
pub fn without_secrets(text: &str) -> String {
    let Ok(mut url) = Url::parse(text) else { return String::new() };
    // Both fail only for URLs that cannot have them, such as `data:`.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_fragment(None);
    if url.query().is_some() {
        url.set_query(None);
        return format!("{url}?…");
    }
    url.to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn open() -> TargetPolicy {
        TargetPolicy { allow_http: true, ..TargetPolicy::default() }
    }

    #[test]
    fn every_spelling_of_a_forbidden_address_is_refused() {
        for host in [
            "127.0.0.1",
            "0x7f.1",
            "0x7f000001",
            "2130706433",
            "017700000001",
            "127.1",
            "127.0.1",
            "0177.0.0.1",
            "１２７.０.０.１",
            "①②⑦.0.0.1",
            "127。0。0。1",
            "127.0.0.1.",
            "%31%32%37.0.0.1",
            "0",
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "169.254.169.254",
            "0xa9fea9fe",
            "172.31.255.255",
            "192.168.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "[::]",
            "[::1]",
            "[0:0:0:0:0:0:0:1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[::127.0.0.1]",
            "[2002:7f00:1::]",
            "[2001:0:4136:e378:8000:63bf:3fff:fdd2]",
            "[64:ff9b::127.0.0.1]",
            "[64:ff9b:1::7f00:1]",
            "[fe80::1]",
            "[fc00::1]",
            "[ff02::1]",
            "[2001:db8::1]",
        ] {
            for url in [format!("http://{host}/hook"), format!("https://{host}:8443/hook")] {
                assert_eq!(open().check(&url), Err(TargetFault::Address), "{url}");
            }
        }
    }

    #[test]
    fn each_fault_has_its_name() {
        let strict = TargetPolicy::default();
        for (text, fault) in [
            ("http://example.com/", TargetFault::NotHttps),
            ("ftp://example.com/", TargetFault::NotHttps),
            ("file:///etc/passwd", TargetFault::NotHttps),
            ("example.com", TargetFault::NotUrl),
            ("https://", TargetFault::NotUrl),
            ("https:// example.com", TargetFault::NotUrl),
            ("https://exam\tple.com", TargetFault::NotUrl),
            ("https:\\\\example.com", TargetFault::NotUrl),
            ("https://ada:secret@example.com/", TargetFault::Credentials),
            ("https://ada@example.com/", TargetFault::Credentials),
            ("https://127.0.0.1@example.com/", TargetFault::Credentials),
            ("https://example.com:22/", TargetFault::Port(22)),
            ("https://example.com:25/", TargetFault::Port(25)),
            ("https://example.com:6379/", TargetFault::Port(6379)),
            ("https://example.com:0/", TargetFault::Port(0)),
            ("https://[::1%25eth0]/", TargetFault::NotUrl),
            ("https://127.0.0.1:99999/", TargetFault::NotUrl),
        ] {
            assert_eq!(strict.check(text), Err(fault), "{text}");
        }
        assert_eq!(open().check("gopher://example.com/"), Err(TargetFault::NotHttp));
        let long = format!("https://example.com/{}", "a".repeat(MAX_URL_BYTES));
        assert_eq!(strict.check(&long), Err(TargetFault::TooLong));
    }

    #[test]
    fn public_hosts_are_taken() {
        let strict = TargetPolicy::default();
        for text in [
            "https://example.com",
            "https://münchen.example/hook?token=a",
            "https://1.1.1.1:8443/",
            "https://[2606:4700::1111]/",
        ] {
            assert!(strict.check(text).is_ok(), "{text}");
        }
        assert!(open().check("http://example.com:8080/hook").is_ok());
    }

    #[test]
    fn the_operator_opens_and_closes_networks() {
        let policy = TargetPolicy {
            allow_http: false,
            allow: vec!["10.0.0.0/8".parse().unwrap()],
            own: vec!["1.1.1.0/24".parse().unwrap(), "2606:4700::/32".parse().unwrap()],
        };
        assert!(policy.check("https://10.1.2.3/").is_ok());
        assert_eq!(policy.check("https://[::ffff:10.1.2.3]/"), Err(TargetFault::Address));
        assert_eq!(policy.check("https://127.0.0.1/"), Err(TargetFault::Address));
        assert_eq!(policy.check("https://1.1.1.1/"), Err(TargetFault::Address));
        assert_eq!(policy.check("https://[2606:4700::1]/"), Err(TargetFault::Address));
        assert!(policy.check("https://1.1.2.1/").is_ok());
    }

    #[test]
    fn what_is_shown_has_no_secret() {
        assert_eq!(without_secrets("https://ada:pw@example.com:8443/a/b?token=x#y"), "https://example.com:8443/a/b?…");
        assert_eq!(without_secrets("https://example.com/a"), "https://example.com/a");
        assert_eq!(without_secrets("nonsense"), "");
        assert_eq!(origin("https://EXAMPLE.com/a?b"), "https://example.com");
        assert_eq!(origin("http://example.com:8080/a"), "http://example.com:8080");
    }

    /// An IPv4 address in one of the forms that parsers know: one to four parts, each in octal, decimal or hex.
    fn spelled(bits: u32, parts: usize, radix: [u8; 4]) -> String {
        let number = |value: u32, radix: u8| match radix % 3 {
            0 => format!("{value}"),
            1 => format!("0x{value:x}"),
            _ => format!("0{value:o}"),
        };
        let octets = bits.to_be_bytes();
        let mut words: Vec<String> = (0..parts - 1).map(|i| number(u32::from(octets[i]), radix[i])).collect();
        let rest = if parts == 1 { bits } else { bits & (u32::MAX >> (8 * (parts - 1))) };
        words.push(number(rest, radix[3]));
        words.join(".")
    }

    proptest! {
        /// However an address is spelled, it is judged as what it is.
        #[test]
        fn spelling_changes_nothing(bits: u32, parts in 1_usize..=4, radix: [u8; 4]) {
            let address = IpAddr::V4(bits.into());
            let judged = open().check(&format!("http://{}/", spelled(bits, parts, radix)));
            prop_assert_eq!(judged.is_ok(), is_public(address), "{}", spelled(bits, parts, radix));
        }

        #[test]
        fn no_text_panics_and_what_passes_is_http_without_credentials(text in "\\PC{0,60}") {
            for text in [text.clone(), format!("https://{text}")] {
                if let Ok(url) = TargetPolicy::default().check(&text) {
                    prop_assert_eq!(url.scheme(), "https");
                    prop_assert!(url.username().is_empty() && url.password().is_none());
                }
                let _ = (origin(&text), without_secrets(&text));
            }
        }
    }
}
