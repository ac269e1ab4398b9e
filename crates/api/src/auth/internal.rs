//! Holds: the right to use the public calls, which are meant for a site's back end.

use std::marker::PhantomData;

use axum::extract::FromRequestParts;
use http::{HeaderName, request::Parts};
use secrecy::ExposeSecret;
use subtle::ConstantTimeEq;

use crate::{
    app::{ApiSettings, App},
    error::ApiError,
    throttle::client_address,
};

const X_INTERNAL_TOKEN: HeaderName = HeaderName::from_static("x-internal-token");

const NEEDS_TOKEN: &str = "This call needs the site's own token as `X-Internal-Token`.";

/// The site's back end by its token, or anybody where the call is open, within the limit of their address.
pub(crate) struct InternalCaller<C>(PhantomData<C>);

/// Which of the calls are open to anybody.
pub(crate) trait Openness {
    fn is_open(settings: &ApiSettings) -> bool;
}

/// Registration and login.
pub(crate) struct Open;
/// The look-up by email, which shows a balance.
pub(crate) struct Lookup;

impl Openness for Open {
    fn is_open(_: &ApiSettings) -> bool {
        true
    }
}

impl Openness for Lookup {
    fn is_open(settings: &ApiSettings) -> bool {
        settings.public_lookup
    }
}

impl<C: Openness> FromRequestParts<App> for InternalCaller<C> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let settings = &app.settings;
        // Wrong tokens count too, so that they cannot be tried out.
        let address = client_address(&parts.extensions, &parts.headers, &settings.trusted_proxies);
        let Some(token) = &settings.internal_token else {
            app.throttle.address(address)?;
            return if C::is_open(settings) { Ok(Self(PhantomData)) } else { Err(ApiError::unauthorized(NEEDS_TOKEN)) };
        };
        let sent = parts.headers.get(X_INTERNAL_TOKEN).map_or(&b""[..], |value| value.as_bytes());
        if bool::from(sent.ct_eq(token.expose_secret().as_bytes())) {
            return Ok(Self(PhantomData));
        }
        app.throttle.address(address)?;
        Err(ApiError::unauthorized(NEEDS_TOKEN))
    }
}
