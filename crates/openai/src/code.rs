//! Holds: the error codes that clients are told, each with its status and its family.

/// The error codes of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Key missing, unknown or revoked.
    Unauthorized,
    /// Wrong email or password.
    InvalidCredentials,
    /// The balance or the key's budget does not cover it.
    PaymentRequired,
    /// No such object for this caller.
    NotFound,
    /// It contradicts what is there.
    Conflict,
    /// A body over its limit.
    PayloadTooLarge,
    /// Nothing can serve it now.
    ServiceUnavailable,
    /// The request itself is at fault.
    InvalidRequest,
    /// Known and not allowed.
    Forbidden,
    /// The path exists with other methods.
    MethodNotAllowed,
    /// Too many requests.
    RateLimitExceeded,
    /// No such model.
    ModelNotFound,
    /// The model server failed.
    UpstreamError,
    /// The model server took too long.
    UpstreamTimeout,
    /// The client did not finish sending.
    RequestTimeout,
    /// What is asked for lies beyond the file.
    RangeNotSatisfiable,
    /// The body is in a form that is not read.
    UnsupportedMediaType,
    /// The disk has no room for what may be refused.
    InsufficientStorage,
    /// Our fault.
    Internal,
}

impl Code {
    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::InvalidCredentials => "invalid_credentials",
            Self::PaymentRequired => "payment_required",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::PayloadTooLarge => "payload_too_large",
            Self::ServiceUnavailable => "service_unavailable",
            Self::InvalidRequest => "invalid_request",
            Self::Forbidden => "forbidden",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::RateLimitExceeded => "rate_limit_exceeded",
            Self::ModelNotFound => "model_not_found",
            Self::UpstreamError => "upstream_error",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::RequestTimeout => "request_timeout",
            Self::RangeNotSatisfiable => "range_not_satisfiable",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::InsufficientStorage => "insufficient_storage",
            Self::Internal => "internal",
        }
    }

    /// The HTTP status that it comes with.
    pub const fn status(self) -> u16 {
        match self {
            Self::Unauthorized | Self::InvalidCredentials => 401,
            Self::PaymentRequired => 402,
            Self::NotFound | Self::ModelNotFound => 404,
            Self::Conflict => 409,
            Self::PayloadTooLarge => 413,
            Self::ServiceUnavailable => 503,
            Self::InvalidRequest => 400,
            Self::Forbidden => 403,
            Self::MethodNotAllowed => 405,
            Self::RateLimitExceeded => 429,
            Self::UpstreamError => 502,
            Self::UpstreamTimeout => 504,
            Self::RequestTimeout => 408,
            Self::RangeNotSatisfiable => 416,
            Self::UnsupportedMediaType => 415,
            Self::InsufficientStorage => 507,
            Self::Internal => 500,
        }
    }

    /// The family, as OpenAI's clients know it.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Unauthorized | Self::InvalidCredentials => "authentication_error",
            Self::PaymentRequired => "insufficient_quota",
            Self::Forbidden => "permission_error",
            Self::RateLimitExceeded => "rate_limit_error",
            Self::NotFound
            | Self::ModelNotFound
            | Self::Conflict
            | Self::PayloadTooLarge
            | Self::InvalidRequest
            | Self::RequestTimeout
            | Self::RangeNotSatisfiable
            | Self::UnsupportedMediaType
            | Self::MethodNotAllowed => "invalid_request_error",
            Self::ServiceUnavailable
            | Self::InsufficientStorage
            | Self::UpstreamError
            | Self::UpstreamTimeout
            | Self::Internal => "server_error",
        }
    }
}
