//! Holds: addresses that anybody may fetch a file from for a while, without a key.
//!
//! An address names the file, says until when it works, and is signed over both with HMAC-SHA256 (RFC 2104). Whoever has one
//! can do nothing else with it, and it works no longer than the file is kept.

use std::time::Duration;

use batchin_domain::{FileId, Timestamp};
use ring::hmac;

/// Signs addresses, the same on every node. Cheap to clone.
#[derive(Clone)]
pub struct Links {
    key: hmac::Key,
    /// What every address begins with: scheme and host, without a slash at its end.
    base: String,
}

impl Links {
    /// Of a server that is known by this address. The secret is known to its nodes alone.
    pub fn new(secret: &[u8; 32], base: &str) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, secret), base: base.trim_end_matches('/').to_owned() }
    }

    /// Where a file is found for so long.
    pub fn address(&self, file: FileId, now: Timestamp, lasts: Duration) -> String {
        let until = now.after(lasts).seconds();
        let signature = hex::encode(hmac::sign(&self.key, signed(file, until).as_bytes()));
        format!("{}/v1/images/{file}/content?expires={until}&signature={signature}", self.base)
    }

    /// Whether an address is one of ours that still works.
    pub fn holds(&self, file: FileId, until: i64, signature: &str, now: Timestamp) -> bool {
        let signature = hex::decode(signature).unwrap_or_default();
        let is_ours = hmac::verify(&self.key, signed(file, until).as_bytes(), &signature).is_ok();
        is_ours && now.seconds() < until
    }
}

fn signed(file: FileId, until: i64) -> String {
    format!("{file} {until}")
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn an_address_works_for_its_file_and_its_time_alone() {
        let links = Links::new(&[7; 32], "https://a.example/");
        let (file, now) = (FileId::new(Uuid::from_u128(5)), Timestamp::from_micros(1_000_000_000));
        let address = links.address(file, now, Duration::from_secs(60));
        let (path, query) = address.split_once('?').unwrap();
        assert_eq!(path, format!("https://a.example/v1/images/{file}/content"));
        let signature = query.strip_prefix("expires=1060&signature=").unwrap();
        let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000);
        assert!(links.holds(file, 1_060, signature, at(1_059)));
        assert!(!links.holds(file, 1_060, signature, at(1_060)), "over");
        assert!(!links.holds(file, 1_061, signature, at(1_000)), "made to last longer");
        assert!(!links.holds(FileId::new(Uuid::from_u128(6)), 1_060, signature, at(1_000)), "another file");
        assert!(!Links::new(&[8; 32], "").holds(file, 1_060, signature, at(1_000)), "another server's");
        for wrong in ["", "00", "zz", &signature[2..]] {
            assert!(!links.holds(file, 1_060, wrong, at(1_000)), "{wrong}");
        }
    }
}
