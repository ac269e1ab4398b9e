//! Holds: `[usdc.x402]`: payments in USDC that a program signs for.

use batchin_billing::X402Options;
use batchin_domain::{Amount, money::NANOS_PER_CENT};
use batchin_evm::x402::FacilitatorOptions;
use batchin_settings::{FaultKind, Kind, Preset, Scope, Setting, settings};

settings! {
    pub(super) const SETTINGS: &[&Setting];

    const FACILITATOR: Setting = Setting {
        path: "usdc.x402.facilitator",
        kind: Kind::Url(&["http", "https"]),
        preset: Preset::Absent { example: "\"https://facilitator.example\"" },
        doc: "Who carries out what clients sign (x402 version 2) and pays the chain for it; /verify, /settle and /supported lie \
              below. Its word credits nothing: the chain does. Left out: nobody pays over x402.",
    };
    const API_KEY: Setting = Setting {
        path: "usdc.x402.api_key",
        kind: Kind::Secret,
        preset: Preset::Absent { example: "\"…\"" },
        doc: "What it knows you by, sent as a bearer token; many want none.",
    };
    const AMOUNT_CENTS: Setting = Setting {
        path: "usdc.x402.amount_cents",
        kind: Kind::Integer { min: 1, max: 100_000_000 },
        preset: Preset::Integer(100),
        doc: "What is asked for at least, in US cents, and the least that is taken; not below usdc.min_cents. The official clients pay \
              nothing above $1 unless they are told to.",
    };
}

/// `None`: nobody pays over x402. `min` is the least payment in USDC; `is_offered` says whether some chain's token can be signed for.
pub(super) fn read(scope: &Scope<'_>, min: Amount, is_offered: bool) -> Option<X402Options> {
    let (url, api_key) = (scope.optional_url(&FACILITATOR), scope.secret(&API_KEY));
    let nanos = i64::try_from(scope.integer(&AMOUNT_CENTS)).unwrap_or(i64::MAX).saturating_mul(NANOS_PER_CENT);
    let amount = Amount::from_nanos(nanos).unwrap_or(Amount::MAX);
    let url = url?;
    if amount < min {
        scope.fault(
            &AMOUNT_CENTS,
            FaultKind::Value,
            "is below usdc.min_cents, so that what is paid would wait for more",
        );
    }
    if !is_offered {
        let message =
            "there is no chain on which it could carry anything out: none that is known, and none with token_name";
        scope.fault(&FACILITATOR, FaultKind::Reference, message);
    }
    Some(X402Options { facilitator: FacilitatorOptions { url: url.into(), api_key }, amount })
}
