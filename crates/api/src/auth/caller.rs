//! Holds: the proofs that a key or a session gives.

use axum::extract::FromRequestParts;
use batchin_domain::{AccountId, Amount, KeyId};
use batchin_gateway::Caller;
use batchin_openai::Code;
use http::{HeaderMap, HeaderName, HeaderValue, Request, header::AUTHORIZATION, request::Parts};

use crate::{app::App, error::ApiError, secret::Presented};

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

const MISSING: &str = "No API key was sent; send it as `Authorization: Bearer KEY`.";
const WRONG: &str = "This API key does not exist or does not work any more.";
const ENDED: &str = "This session does not exist or has ended; log in again.";
const NO_SESSION: &str =
    "A session token cannot be used for inference; make an API key with POST /v1/keys and send that.";

const BUDGETED: &str = "This key has a monthly budget, and such a key may not change what binds it: it makes, changes \
                        and deletes no keys, rotates no webhook secret and does not change its user. Use a session \
                        (POST /v1/users/login) or a key without a budget.";

const NO_ADMIN: &str = "This call is for admins; `batchin user create EMAIL --admin` makes one.";
const BUDGETED_ADMIN: &str = "This key has a monthly budget, and such a key operates nothing, whoever owns it. Use a \
                              session (POST /v1/users/login) or a key without a budget.";

/// A key that may spend.
pub(crate) struct InferenceCaller(pub(crate) Caller);

/// A key or a session that may manage its account.
pub(crate) struct AccountCaller {
    pub(crate) account: AccountId,
    /// The key that was sent, if it was one.
    pub(crate) key: Option<KeyId>,
    /// The key's monthly budget.
    pub(crate) monthly_budget: Option<Amount>,
    rate_limit_rpm: Option<u32>,
}

/// A session, or a key without a budget: whoever may change what the account's keys may do.
pub(crate) struct ManagingCaller {
    pub(crate) account: AccountId,
}

/// A session of an admin, or a key of one without a budget: whoever may operate the platform.
pub(crate) struct AdminCaller {
    pub(crate) account: AccountId,
}

impl AccountCaller {
    /// As the gateway knows callers.
    pub(crate) fn caller(&self) -> Caller {
        Caller {
            account: self.account,
            key: self.key,
            rate_limit_rpm: self.rate_limit_rpm,
            monthly_budget: self.monthly_budget,
            capped_by: None,
        }
    }
}

/// What of a request shows who asks, kept for when that matters after all.
pub(crate) struct Proof([(HeaderName, Option<HeaderValue>); 2]);

impl Proof {
    /// Of a request with these headers.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        Self([AUTHORIZATION, X_API_KEY].map(|name| (name.clone(), headers.get(name).cloned())))
    }

    /// Whom it proves by now.
    pub(crate) async fn caller(&self, app: &App) -> Result<AccountCaller, ApiError> {
        let (mut parts, ()) = Request::new(()).into_parts();
        for (name, value) in &self.0 {
            value.clone().and_then(|value| parts.headers.insert(name, value));
        }
        AccountCaller::from_request_parts(&mut parts, app).await
    }
}

/// The secret in the headers: a bearer token, or `x-api-key`.
fn presented(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| {
        let (scheme, secret) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim())
    });
    let secret = bearer.or_else(|| headers.get(X_API_KEY)?.to_str().ok().map(str::trim));
    secret.filter(|secret| !secret.is_empty())
}

impl FromRequestParts<App> for InferenceCaller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let secret = presented(&parts.headers).ok_or_else(|| ApiError::unauthorized(MISSING))?;
        match Presented::of(secret) {
            Presented::Key(hash) => {
                let caller = app.keys.caller(hash).await?;
                caller.map(Self).ok_or_else(|| ApiError::unauthorized(WRONG))
            }
            Presented::Session(_) => Err(ApiError::unauthorized(NO_SESSION)),
            Presented::Neither => Err(ApiError::unauthorized(WRONG)),
        }
    }
}

impl FromRequestParts<App> for AccountCaller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let secret = presented(&parts.headers).ok_or_else(|| ApiError::unauthorized(MISSING))?;
        match Presented::of(secret) {
            Presented::Key(hash) => {
                let caller = app.keys.caller(hash).await?.ok_or_else(|| ApiError::unauthorized(WRONG))?;
                Ok(Self {
                    account: caller.account,
                    key: caller.key,
                    monthly_budget: caller.monthly_budget,
                    rate_limit_rpm: caller.rate_limit_rpm,
                })
            }
            Presented::Session(hash) => {
                let session = app.accounts.session(hash, app.now()).await?;
                let session = session.ok_or_else(|| ApiError::unauthorized(ENDED))?;
                Ok(Self { account: session.user, key: None, monthly_budget: None, rate_limit_rpm: None })
            }
            Presented::Neither => Err(ApiError::unauthorized(WRONG)),
        }
    }
}

impl FromRequestParts<App> for ManagingCaller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        if let Some(Presented::Key(hash)) = presented(&parts.headers).map(Presented::of) {
            // Not from memory: a budget that was set a moment ago binds already.
            let key = app.keys.record(hash).await?.ok_or_else(|| ApiError::unauthorized(WRONG))?;
            if key.monthly_budget.is_some() {
                return Err(ApiError::new(Code::Forbidden, BUDGETED));
            }
        }
        let caller = AccountCaller::from_request_parts(parts, app).await?;
        Ok(Self { account: caller.account })
    }
}

impl FromRequestParts<App> for AdminCaller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let secret = presented(&parts.headers).ok_or_else(|| ApiError::unauthorized(MISSING))?;
        // Neither from memory: who was kept out a moment ago is out.
        let (account, admin, budget) = match Presented::of(secret) {
            Presented::Key(hash) => {
                let key = app.keys.record(hash).await?.ok_or_else(|| ApiError::unauthorized(WRONG))?;
                (key.account, key.admin, key.monthly_budget)
            }
            Presented::Session(hash) => {
                let session = app.accounts.session(hash, app.now()).await?;
                let session = session.ok_or_else(|| ApiError::unauthorized(ENDED))?;
                (session.user, session.admin, None)
            }
            Presented::Neither => return Err(ApiError::unauthorized(WRONG)),
        };
        match (admin, budget) {
            (true, None) => Ok(Self { account }),
            (true, Some(_)) => Err(ApiError::new(Code::Forbidden, BUDGETED_ADMIN)),
            (false, _) => Err(ApiError::new(Code::Forbidden, NO_ADMIN)),
        }
    }
}

/// Whether a key or a session was sent at all.
pub(crate) fn is_key_sent(headers: &HeaderMap) -> bool {
    presented(headers).is_some()
}

/// The hash of the session token in the headers, if there is one.
pub(crate) fn session_hash(headers: &HeaderMap) -> Option<[u8; 32]> {
    match presented(headers).map(Presented::of) {
        Some(Presented::Session(hash)) => Some(hash),
        Some(Presented::Key(_) | Presented::Neither) | None => None,
    }
}
