//! Holds: what an endpoint's error means. Every kind of node has words of its own; only codes leave this file.

use std::time::Duration;

use super::error::RpcError;

/// What a limit of their own is called, by endpoints that have one (EIP-1474), for calls as for results.
const LIMIT_EXCEEDED: i64 = -32005;
const INVALID_PARAMS: i64 = -32602;
/// Not longer than this is believed of `retry-after`.
const MAX_PAUSE: Duration = Duration::from_secs(3600);

/// In the words of public endpoints, in lower case.
const TOO_MANY: [&str; 12] = [
    "block range is too",
    "block range too",
    "range is too",
    "range too large",
    "maximum block range",
    "max block range",
    "limited to",
    "more than",
    "response size",
    "result set",
    "too many results",
    "query timeout",
];
const BUSY: [&str; 4] = ["rate limit", "too many requests", "request count", "capacity"];
const BEYOND: [&str; 5] = ["beyond", "outofrange", "out of range", "in the future", "not yet"];
const UNKNOWN: [&str; 4] = ["unknown block", "header not found", "block not found", "could not be found"];

/// A JSON-RPC error.
pub(super) fn of_error(method: &str, code: i64, message: &str, status: u16) -> RpcError {
    let message = message.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    let asks_for_logs = method == "eth_getLogs";
    if asks_for_logs && says(&TOO_MANY) {
        RpcError::TooMany
    } else if code == LIMIT_EXCEEDED || says(&BUSY) {
        RpcError::Busy { retry_after: None }
    } else if says(&UNKNOWN) {
        RpcError::UnknownBlock
    } else if code == INVALID_PARAMS && says(&BEYOND) {
        RpcError::Lags
    } else {
        RpcError::Refused { code: Some(code), status }
    }
}

/// An answer that is no JSON-RPC.
pub(super) fn of_status(status: u16, retry_after: Option<&str>) -> RpcError {
    match status {
        401 | 403 => RpcError::Unauthorised,
        413 => RpcError::TooMany,
        429 => {
            let seconds = retry_after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
            RpcError::Busy { retry_after: seconds.map(|pause| pause.min(MAX_PAUSE)) }
        }
        408 | 504 => RpcError::TimedOut,
        500..=599 => RpcError::Unreachable,
        200..=299 => RpcError::Unreadable,
        status => RpcError::Refused { code: None, status },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_apart() {
        let busy = RpcError::Busy { retry_after: None };
        for (method, code, message, expected) in [
            ("eth_getLogs", -32602, "BlockOutOfRangeError: block height is 70 but requested was 768", RpcError::Lags),
            ("eth_getLogs", -32602, "block range extends beyond current head block", RpcError::Lags),
            ("eth_getLogs", -32000, "unknown block", RpcError::UnknownBlock),
            ("eth_getLogs", -32005, "query returned more than 10000 results", RpcError::TooMany),
            (
                "eth_getLogs",
                -32602,
                "Log response size exceeded. You can make eth_getLogs requests with up to a 2K block range",
                RpcError::TooMany,
            ),
            ("eth_getLogs", -32000, "exceed maximum block range: 5000", RpcError::TooMany),
            ("eth_getLogs", -32614, "eth_getLogs is limited to a 10,000 range", RpcError::TooMany),
            ("eth_getLogs", -32005, "daily request count exceeded, request rate limited", busy),
            ("eth_chainId", 429, "Your app has exceeded its compute units per second capacity", busy),
            ("eth_chainId", -32601, "Method not found", RpcError::Refused { code: Some(-32601), status: 200 }),
        ] {
            assert_eq!(of_error(method, code, message, 200), expected, "{message}");
        }
        assert_eq!(of_status(429, Some("7")), RpcError::Busy { retry_after: Some(Duration::from_secs(7)) });
        assert_eq!(of_status(200, None), RpcError::Unreadable);
    }
}
