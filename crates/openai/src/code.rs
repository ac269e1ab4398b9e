//! Holds: the error codes that clients are told, each with its status and its family.

macro_rules! codes {
    ($($(#[$what:meta])* $code:ident = $name:literal, $status:literal, $family:literal;)+) => {
        batchin_domain::listed! {
            /// The error codes of the contract.
            pub enum Code { $($(#[$what])* $code => $name),+ }
        }

        impl Code {
            /// The HTTP status that it comes with.
            pub const fn status(self) -> u16 {
                match self { $(Self::$code => $status),+ }
            }

            /// The family, as OpenAI's clients know it.
            pub const fn kind(self) -> &'static str {
                match self { $(Self::$code => $family),+ }
            }
        }
    };
}

codes! {
    /// Key missing, unknown or revoked.
    Unauthorized = "unauthorized", 401, "authentication_error";
    /// Wrong email or password.
    InvalidCredentials = "invalid_credentials", 401, "authentication_error";
    /// The balance or the key's budget does not cover it.
    PaymentRequired = "payment_required", 402, "insufficient_quota";
    /// No such object for this caller.
    NotFound = "not_found", 404, "invalid_request_error";
    /// It contradicts what is there.
    Conflict = "conflict", 409, "invalid_request_error";
    /// A body over its limit.
    PayloadTooLarge = "payload_too_large", 413, "invalid_request_error";
    /// Nothing can serve it now.
    ServiceUnavailable = "service_unavailable", 503, "server_error";
    /// The request itself is at fault.
    InvalidRequest = "invalid_request", 400, "invalid_request_error";
    /// Known and not allowed.
    Forbidden = "forbidden", 403, "permission_error";
    /// The path exists with other methods.
    MethodNotAllowed = "method_not_allowed", 405, "invalid_request_error";
    /// Too many requests.
    RateLimitExceeded = "rate_limit_exceeded", 429, "rate_limit_error";
    /// Nobody has room for work that waits.
    ResourceUnavailable = "resource_unavailable", 429, "rate_limit_error";
    /// No such model.
    ModelNotFound = "model_not_found", 404, "invalid_request_error";
    /// The model server failed.
    UpstreamError = "upstream_error", 502, "server_error";
    /// The model server took too long.
    UpstreamTimeout = "upstream_timeout", 504, "server_error";
    /// The client did not finish sending.
    RequestTimeout = "request_timeout", 408, "invalid_request_error";
    /// What is asked for lies beyond the file.
    RangeNotSatisfiable = "range_not_satisfiable", 416, "invalid_request_error";
    /// The body is in a form that is not read.
    UnsupportedMediaType = "unsupported_media_type", 415, "invalid_request_error";
    /// The disk has no room for what may be refused.
    InsufficientStorage = "insufficient_storage", 507, "server_error";
    /// Our fault.
    Internal = "internal", 500, "server_error";
    // Faults of lines are listed where their batch is shown; sent alone, each would be a bad request.
    /// A line of a batch's file is no JSON object.
    InvalidJsonLine = "invalid_json_line", 400, "invalid_request_error";
    /// A line has no end within its limit.
    LineTooLong = "line_too_long", 400, "invalid_request_error";
    /// A file has no line.
    EmptyFile = "empty_file", 400, "invalid_request_error";
    /// A file has more lines than a batch takes.
    TooManyTasks = "too_many_tasks", 400, "invalid_request_error";
    /// A member that a line needs is not there.
    MissingRequiredParameter = "missing_required_parameter", 400, "invalid_request_error";
    /// A line's member is of another type.
    InvalidType = "invalid_type", 400, "invalid_request_error";
    /// A line's name is empty, too long or cannot be stored.
    InvalidCustomId = "invalid_custom_id", 400, "invalid_request_error";
    /// An earlier line has the same name.
    DuplicateCustomId = "duplicate_custom_id", 400, "invalid_request_error";
    /// A line's method is not POST.
    InvalidMethod = "invalid_method", 400, "invalid_request_error";
    /// A line's url is no call that is served.
    InvalidUrl = "invalid_url", 400, "invalid_request_error";
    /// A line's url is not its batch's endpoint.
    MismatchedEndpoint = "mismatched_endpoint", 400, "invalid_request_error";
    /// A line's model does not serve its call.
    InvalidModel = "invalid_model", 400, "invalid_request_error";
    /// A line's model is not served at this time.
    ModelOffline = "model_offline", 400, "invalid_request_error";
}

#[cfg(test)]
mod tests {
    use super::Code;

    #[test]
    fn every_code_is_documented() {
        let documentation = include_str!("../../../docs/api.md");
        for code in Code::ALL {
            assert!(documentation.contains(&format!("`{}`", code.name())), "docs/api.md lacks {}", code.name());
        }
    }
}
