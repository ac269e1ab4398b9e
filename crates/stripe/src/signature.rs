//! Holds: whether a webhook's body is Stripe's.

use ring::hmac;
use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;

/// How far the signature's time may be from ours, in seconds, as Stripe's own packages have it.
pub const TOLERANCE_SECONDS: i64 = 300;

/// The one scheme that counts; `v0` is for tests.
const SCHEME: &str = "v1";

/// A body is not known to be Stripe's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The header is missing, has no time, or two of them.
    #[error("the header stripe-signature has no time")]
    NoTime,
    /// There is no signature of the scheme that counts.
    #[error("the header stripe-signature has no signature v1")]
    NoSignature,
    /// None of the signatures is one of this body and any of the secrets.
    #[error("no signature fits this body and the webhook's secret")]
    Wrong,
    /// It was signed too long ago.
    #[error("the signature is too old")]
    Old,
    /// It was signed in the future.
    #[error("the signature is from the future: one of the clocks is wrong")]
    Future,
}

/// Whether the bytes of a body were signed with any of the secrets (`whsec_…`; several while one replaces another) within the
/// tolerance of `now`, both in seconds.
pub fn verify(
    payload: &[u8],
    header: &str,
    secrets: &[SecretString],
    now: i64,
    tolerance: i64,
) -> Result<(), SignatureError> {
    let values = |name: &'static str| {
        let parts = header.split(',').filter_map(|part| part.trim().split_once('='));
        parts.filter(move |(is, _)| *is == name).map(|(_, value)| value)
    };
    let mut times = values("t");
    let (Some(time), None) = (times.next(), times.next()) else { return Err(SignatureError::NoTime) };
    let is_number = !time.is_empty() && time.bytes().all(|byte| byte.is_ascii_digit());
    let signed_at: i64 = time.parse().ok().filter(|_| is_number).ok_or(SignatureError::NoTime)?;
    if values(SCHEME).next().is_none() {
        return Err(SignatureError::NoSignature);
    }
    // Anybody can sign with an empty secret.
    let usable = secrets.iter().map(|secret| secret.expose_secret()).filter(|secret| !secret.trim().is_empty());
    let ours: Vec<hmac::Tag> = usable.map(|secret| signed(secret, time, payload)).collect();
    let fits = |signature: &str| {
        let theirs = hex::decode(signature).unwrap_or_default();
        ours.iter().any(|ours| bool::from(ours.as_ref().ct_eq(&theirs)))
    };
    if !values(SCHEME).any(fits) {
        return Err(SignatureError::Wrong);
    }
    match now.saturating_sub(signed_at) {
        age if age > tolerance => Err(SignatureError::Old),
        age if age < -tolerance => Err(SignatureError::Future),
        _ => Ok(()),
    }
}

fn signed(secret: &str, time: &str, payload: &[u8]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()));
    context.update(time.as_bytes());
    context.update(b".");
    context.update(payload);
    context.sign()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = br#"{"id":"evt_1","object":"event"}"#;
    const NOW: i64 = 1_790_000_000;

    fn header(secret: &str, time: i64, body: &[u8]) -> String {
        format!("t={time},v1={}", hex::encode(signed(secret, &time.to_string(), body)))
    }

    fn check(header: &str, secrets: &[&str]) -> Result<(), SignatureError> {
        let secrets: Vec<_> = secrets.iter().map(|secret| SecretString::from(*secret)).collect();
        verify(BODY, header, &secrets, NOW, TOLERANCE_SECONDS)
    }

    /// Made by `hmac.new(b"whsec_test", b"1790000000." + body, "sha256")` in Python.
    #[test]
    fn a_known_signature_fits() {
        let known = "t=1790000000,v1=00ba81aba90a4cf87c6f87127da13e8e98cddfe214e9e97b0fdfc547be8acead";
        assert_eq!(check(known, &["whsec_test"]), Ok(()));
    }

    #[test]
    fn any_signature_and_any_secret_will_do() {
        let (old, new) = (header("whsec_old", NOW, BODY), header("whsec_new", NOW, BODY));
        let (_, second) = new.split_once(',').unwrap();
        for (header, secrets) in [
            (old.clone(), &["whsec_old"][..]),
            (old.clone(), &["whsec_new", "whsec_old"]),
            (format!("{old},{second}"), &["whsec_new"]),
            (format!("{old},v0=00,v2=aa,odd,{second}"), &["whsec_new"]),
            (old.replace(',', ", "), &["whsec_old"]),
        ] {
            assert_eq!(check(&header, secrets), Ok(()), "{header}");
        }
        let foreign = old.replace("v1=", "v0=");
        assert_eq!(check(&foreign, &["whsec_old"]), Err(SignatureError::NoSignature));
        for secrets in [&["whsec_new"][..], &[], &[""]] {
            assert_eq!(check(&old, secrets), Err(SignatureError::Wrong), "{secrets:?}");
        }
        assert_eq!(check(&header("", NOW, BODY), &["", " "]), Err(SignatureError::Wrong));
    }

    #[test]
    fn a_body_or_time_that_was_touched_does_not_fit() {
        let good = header("whsec_a", NOW, BODY);
        assert_eq!(check(&header("whsec_a", NOW, b"{}"), &["whsec_a"]), Err(SignatureError::Wrong));
        assert_eq!(check(&good.replace("t=179", "t=178"), &["whsec_a"]), Err(SignatureError::Wrong));
        assert_eq!(check(&good[..good.len() - 2], &["whsec_a"]), Err(SignatureError::Wrong));
        for odd in [
            "",
            "t=,v1=00",
            "v1=00",
            "t=x,v1=00",
            "t=-1,v1=00",
            "t=+1,v1=00",
            "t=1,t=1,v1=00",
            "t=99999999999999999999,v1=0",
        ] {
            assert_eq!(check(odd, &["whsec_a"]), Err(SignatureError::NoTime), "{odd}");
        }
    }

    #[test]
    fn a_time_counts_within_the_tolerance_on_both_sides() {
        let at = |time| check(&header("whsec_a", time, BODY), &["whsec_a"]);
        assert_eq!([at(NOW - 300), at(NOW), at(NOW + 300)], [Ok(()); 3]);
        assert_eq!([at(NOW - 301), at(0)], [Err(SignatureError::Old); 2]);
        assert_eq!([at(NOW + 301), at(i64::MAX)], [Err(SignatureError::Future); 2]);
    }
}
