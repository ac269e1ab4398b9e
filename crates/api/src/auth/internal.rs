//! Holds: the right to use the public calls, which are meant for a site's back end.

use std::{marker::PhantomData, net::IpAddr, sync::Once};

use axum::extract::FromRequestParts;
use http::{HeaderMap, HeaderName, Uri, Version, header::HOST, request::Parts, uri::Authority};
use secrecy::ExposeSecret;
use subtle::ConstantTimeEq;
use tracing::warn;

use crate::{
    app::{ApiSettings, App},
    attempts::Origin,
    error::ApiError,
    throttle::{client_address, visitor_address},
};

const X_INTERNAL_TOKEN: HeaderName = HeaderName::from_static("x-internal-token");

const NEEDS_TOKEN: &str = "This call needs the site's own token as `X-Internal-Token`.";
const CAME_FROM_OUTSIDE: &str = "This call came through a proxy or under a public name, so that it needs the site's own \
                                 token as `X-Internal-Token`; the operator sets it as users.internal_token, or opens \
                                 the look-up to everybody with users.public_lookup = true.";

/// What proxies add beside everything that begins with `x-forwarded`.
const ADDED_BY_PROXIES: [&str; 7] =
    ["forwarded", "via", "x-real-ip", "x-client-ip", "true-client-ip", "cf-connecting-ip", "x-envoy-external-address"];

/// The site's back end by its token, or anybody where the call is open, within the limit of their address.
pub(crate) struct InternalCaller<C> {
    /// Where it comes from.
    pub(crate) origin: Origin,
    call: PhantomData<C>,
}

/// Which of the calls are open to anybody.
pub(crate) trait Openness {
    /// Refuses a call without the token where it is needed.
    fn check(settings: &ApiSettings, parts: &Parts) -> Result<(), ApiError>;
}

/// Registration and login.
pub(crate) struct Open;
/// The look-up by email, which shows a balance.
pub(crate) struct Lookup;

impl Openness for Open {
    fn check(_: &ApiSettings, _: &Parts) -> Result<(), ApiError> {
        Ok(())
    }
}

impl Openness for Lookup {
    fn check(settings: &ApiSettings, parts: &Parts) -> Result<(), ApiError> {
        if !settings.public_lookup {
            return Err(ApiError::unauthorized(NEEDS_TOKEN));
        }
        // A proxy on this machine reaches a listener on loopback for the whole world.
        if !settings.proxied_lookup && (is_forwarded(parts) || !is_local_name(&parts.uri, &parts.headers)) {
            static TOLD: Once = Once::new();
            TOLD.call_once(|| {
                warn!("a look-up by email that came through a proxy was refused: set users.internal_token for it");
            });
            return Err(ApiError::unauthorized(CAME_FROM_OUTSIDE));
        }
        Ok(())
    }
}

/// Whether a proxy passed the request on: it says so, or it is nginx, which unless told otherwise says nothing and speaks
/// HTTP/1.0.
fn is_forwarded(parts: &Parts) -> bool {
    let is_added = |name: &str| name.starts_with("x-forwarded") || ADDED_BY_PROXIES.contains(&name);
    parts.version == Version::HTTP_10 || parts.headers.keys().any(|name| is_added(name.as_str()))
}

/// Whether the request was sent to this machine's own name or address, as far as it says.
fn is_local_name(uri: &Uri, headers: &HeaderMap) -> bool {
    let named = headers.get(HOST).and_then(|value| value.to_str().ok());
    let sent_to = uri.authority().cloned().or_else(|| named?.parse::<Authority>().ok());
    let Some(sent_to) = sent_to else { return !headers.contains_key(HOST) };
    let host = sent_to.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

impl<C: Openness> FromRequestParts<App> for InternalCaller<C> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let settings = &app.settings;
        // Wrong tokens count too, so that they cannot be tried out.
        let address = client_address(&parts.extensions, &parts.headers, &settings.trusted_proxies);
        let by = |address, vouched| Self { origin: Origin { address, vouched }, call: PhantomData };
        let Some(token) = &settings.internal_token else {
            app.throttle.address(address)?;
            return C::check(settings, parts).map(|()| by(address, false));
        };
        let sent = parts.headers.get(X_INTERNAL_TOKEN).map_or(&b""[..], |value| value.as_bytes());
        if bool::from(sent.ct_eq(token.expose_secret().as_bytes())) {
            return Ok(by(visitor_address(&parts.extensions, &parts.headers, &settings.trusted_proxies), true));
        }
        app.throttle.address(address)?;
        Err(ApiError::unauthorized(NEEDS_TOKEN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_noticed() {
        let is_noticed = |version, header: &str| {
            let request = http::Request::builder().version(version).header(header, "x").body(()).unwrap();
            is_forwarded(&request.into_parts().0)
        };
        for header in ["X-Forwarded-For", "x-forwarded-host", "Forwarded", "X-Real-IP", "Via", "CF-Connecting-IP"] {
            assert!(is_noticed(Version::HTTP_11, header), "{header}");
        }
        assert!(is_noticed(Version::HTTP_10, "host"));
        assert!(!is_noticed(Version::HTTP_11, "host") && !is_noticed(Version::HTTP_2, "user-agent"));
    }

    #[test]
    fn a_name_is_local_or_it_is_not() {
        let is_local = |host: &str| {
            let headers = HeaderMap::from_iter([(HOST, host.parse().unwrap())]);
            is_local_name(&Uri::from_static("/"), &headers)
        };
        for local in ["127.0.0.1:8080", "127.8.9.1", "localhost", "LOCALHOST:80", "a.localhost", "[::1]:8080"] {
            assert!(is_local(local), "{local}");
        }
        for public in ["example.com", "203.0.113.9:8080", "[2001:db8::1]", "localhost.example.com", "", "a b"] {
            assert!(!is_local(public), "{public}");
        }
        assert!(is_local_name(&Uri::from_static("/"), &HeaderMap::new()));
        assert!(!is_local_name(&Uri::from_static("https://example.com/"), &HeaderMap::new()));
    }
}
