//! Holds: an account's secret, and signatures as Standard Webhooks has them.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::hmac;

/// What a secret's text begins with.
const PREFIX: &str = "whsec_";
/// The one version of signatures that there is for shared secrets.
const VERSION: &str = "v1";

/// What an account's deliveries are signed with.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret([u8; 32]);

impl WebhookSecret {
    /// From 256 random bits.
    pub const fn new(bits: [u8; 32]) -> Self {
        Self(bits)
    }

    /// `whsec_` and base64, for its owner's eyes and nobody else's.
    pub fn text(&self) -> String {
        format!("{PREFIX}{}", STANDARD.encode(self.0))
    }

    pub(crate) const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret([REDACTED])")
    }
}

/// The `webhook-signature` of a message: one signature for each secret that counts, parted by blanks.
pub fn signature(secrets: &[WebhookSecret], id: &str, timestamp: i64, body: &[u8]) -> String {
    let sign = |secret: &WebhookSecret| {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &secret.0));
        context.update(format!("{id}.{timestamp}.").as_bytes());
        context.update(body);
        format!("{VERSION},{}", STANDARD.encode(context.sign()))
    };
    secrets.iter().map(sign).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the Standard Webhooks libraries, whose secret has 24 bytes; HMAC pads keys with zeros, so 32
    /// bytes that end with eight of them sign alike.
    #[test]
    fn a_signature_equals_the_one_of_the_standard() {
        let mut bits = [0; 32];
        bits[..24].copy_from_slice(&STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap());
        let secret = WebhookSecret::new(bits);
        let signed = signature(
            std::slice::from_ref(&secret),
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let other = WebhookSecret::new([1; 32]);
        let two =
            signature(&[other, secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert!(two.starts_with("v1,") && two.ends_with(&format!(" {signed}")), "{two}");
    }

    #[test]
    fn a_secret_shows_itself_only_when_asked() {
        let secret = WebhookSecret::new([7; 32]);
        assert_eq!(secret.text(), "whsec_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=");
        assert!(!format!("{secret:?}").contains('7'));
    }
}
