//! Holds: the bodies of calls about money.

use serde_json::{Value, json};

use super::bodies::{WEBHOOK, cents, closed, email};

/// Schemas by the names of their components.
pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    vec![
        (
            "SetAlerts",
            closed(
                &[],
                json!({ "webhook_url": { "type": ["string", "null"], "pattern": WEBHOOK },
                "email": { "type": ["boolean", "null"],
                    "description": "Whether these events also go to the account's own e-mail address, once that is confirmed." },
                "balance_low_cents": cents("Told once the balance falls below this; null or 0: never."),
                "budget_threshold_percent": { "type": ["integer", "null"], "minimum": 1, "maximum": 100 } }),
            ),
        ),
        (
            "ConfirmEmail",
            closed(
                &["code"],
                json!({ "code": { "type": "string", "minLength": 1, "maxLength": 100, "examples": ["0f1e2d3c4b5a69788796"] } }),
            ),
        ),
        ("ChangeCredit", change_credit()),
        (
            "SetAutoTopup",
            closed(
                &["enabled"],
                json!({ "enabled": { "type": "boolean" },
            "threshold_cents": cents("Paid once the balance is below this."), "amount_cents": whole_cents(),
            "monthly_ceiling_cents": cents("At most so much in a calendar month, UTC.") }),
            ),
        ),
        (
            "PayOverX402",
            closed(&[], json!({ "amount_cents": cents("Asked for, where it is more than the operator's least.") })),
        ),
        ("CreateCheckout", closed(&["amount_cents"], json!({ "amount_cents": whole_cents() }))),
    ]
}

fn change_credit() -> Value {
    let given = "Above 0 it is given, below 0 taken back.";
    closed(
        &["amount_cents", "reason"],
        json!({ "email": email(), "account_id": { "type": "string", "format": "uuid" },
            "amount_cents": { "type": "number", "description": given, "examples": [500] },
            "reason": { "type": "string", "minLength": 1, "maxLength": 500 },
            "reference": { "type": ["string", "null"], "maxLength": 500, "description": "The same reference is booked once." },
            "reverses": { "type": ["string", "null"], "format": "uuid", "description": "The grant that is taken back." } }),
    )
}

fn whole_cents() -> Value {
    json!({ "type": "integer", "minimum": 1, "maximum": 99_999_999, "examples": [2_500],
        "description": "Whole US cents; the operator says how few and how many." })
}
