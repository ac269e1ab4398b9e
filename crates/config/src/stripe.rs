//! Holds: `[stripe]`: payments by card.

use batchin_billing::StripeOptions;
use batchin_settings::{FaultKind, Kind, Preset, Scope, Setting, settings};
use url::Url;

/// What Stripe takes at most: eight digits of cents.
const MAX_CENTS: u64 = 99_999_999;

settings! {
    pub(super) const SETTINGS: &[&Setting];

    const SECRET_KEY: Setting = Setting {
        path: "stripe.secret_key",
        kind: Kind::Secret,
        preset: Preset::Absent { example: "\"rk_live_…\"" },
        doc: "Stripe's key; a restricted one needs to write Checkout Sessions and PaymentIntents, and to read Charges and \
              Refunds, Disputes, Events, Customers, Invoices, SetupIntents and PaymentMethods. Left out: nobody pays by card.",
    };
    const WEBHOOK_SECRET: Setting = Setting {
        path: "stripe.webhook_secret",
        kind: Kind::Secret,
        preset: Preset::Absent { example: "\"whsec_…\"" },
        doc: "What Stripe signs its webhooks with, which go to PUBLIC_URL/v1/webhooks/stripe.",
    };
    const OLD_WEBHOOK_SECRET: Setting = Setting {
        path: "stripe.old_webhook_secret",
        kind: Kind::Secret,
        preset: Preset::Absent { example: "\"whsec_…\"" },
        doc: "The one before, which counts beside it while you replace it.",
    };
    const API_BASE: Setting = Setting {
        path: "stripe.api_base",
        kind: Kind::Url(&["http", "https"]),
        preset: Preset::Text("https://api.stripe.com"),
        doc: "Where Stripe is.",
    };
    const MIN_CENTS: Setting = Setting {
        path: "stripe.min_cents",
        kind: Kind::Integer { min: 50, max: MAX_CENTS },
        preset: Preset::Integer(100),
        doc: "The smallest payment by card, in US cents.",
    };
    const MAX_CENTS_SETTING: Setting = Setting {
        path: "stripe.max_cents",
        kind: Kind::Integer { min: 50, max: MAX_CENTS },
        preset: Preset::Integer(1_000_000),
        doc: "The largest payment by card, in US cents.",
    };
    const PRODUCT: Setting = Setting {
        path: "stripe.product",
        kind: Kind::Text,
        preset: Preset::Text("Prepaid credit"),
        doc: "What buyers read on Stripe's page and on their invoices.",
    };
    const SUCCESS_URL: Setting = Setting {
        path: "stripe.success_url",
        kind: Kind::Url(&["http", "https"]),
        preset: Preset::Follows { example: "\"http://127.0.0.1:8080/\"", other: "server.public_url" },
        doc: "Where buyers come back to who have paid. Coming back credits nothing; Stripe's word does.",
    };
    const CANCEL_URL: Setting = Setting {
        path: "stripe.cancel_url",
        kind: Kind::Url(&["http", "https"]),
        preset: Preset::Follows { example: "\"http://127.0.0.1:8080/\"", other: "server.public_url" },
        doc: "Where buyers come back to who have not paid.",
    };
}

/// `None`: nobody pays by card.
pub(super) fn read(scope: &Scope<'_>, public_url: &Url) -> Option<StripeOptions> {
    // Everything is read before anything is missed, so that every fault comes at once.
    let cents = |setting| i64::try_from(scope.integer(setting)).unwrap_or(i64::MAX);
    let (min_cents, max_cents) = (cents(&MIN_CENTS), cents(&MAX_CENTS_SETTING));
    if min_cents > max_cents {
        scope.fault(&MIN_CENTS, FaultKind::Value, "is more than stripe.max_cents");
    }
    let back = |setting| scope.optional_url(setting).unwrap_or_else(|| public_url.clone()).to_string();
    let (success_url, cancel_url) = (back(&SUCCESS_URL), back(&CANCEL_URL));
    let api_base = scope.optional_url(&API_BASE).map(String::from).unwrap_or_default();
    let (key, secret, old_secret) =
        (scope.secret(&SECRET_KEY), scope.secret(&WEBHOOK_SECRET), scope.secret(&OLD_WEBHOOK_SECRET));
    if secret.is_some() && key.is_none() && !scope.is_set(&SECRET_KEY) {
        scope.fault(
            &SECRET_KEY,
            FaultKind::Value,
            "is missing; stripe.webhook_secret is set, so payments by card are wanted",
        );
    }
    let secret_key = key?;
    let Some(secret) = secret else {
        if !scope.is_set(&WEBHOOK_SECRET) {
            scope.fault(
                &WEBHOOK_SECRET,
                FaultKind::Value,
                "is missing; without it anybody could say that they have paid",
            );
        }
        return None;
    };
    Some(StripeOptions {
        client: batchin_stripe::Options { api_base, secret_key, timeout: batchin_stripe::DEFAULT_TIMEOUT },
        webhook_secrets: [Some(secret), old_secret].into_iter().flatten().collect(),
        min_cents,
        max_cents,
        product: scope.text(&PRODUCT),
        success_url,
        cancel_url,
    })
}
