//! Holds: calls that make something at the fake Stripe, checked as Stripe checks them.

use serde_json::{Value, json};

use super::{
    asked::{Asked, Refused},
    objects::State,
    script::SavedOutcome,
};

/// What Stripe takes for a checkout, as far as ours ask; anything else is refused as unknown.
const OF_SESSIONS: [&str; 17] = [
    "mode",
    "currency",
    "client_reference_id",
    "metadata[",
    "payment_intent_data[",
    "setup_intent_data[",
    "line_items[",
    "success_url",
    "cancel_url",
    "billing_address_collection",
    "tax_id_collection[enabled]",
    "invoice_creation[enabled]",
    "adaptive_pricing[enabled]",
    "customer",
    "customer_update[",
    "customer_creation",
    "customer_email",
];
const OF_INTENTS: [&str; 10] = [
    "amount",
    "currency",
    "customer",
    "payment_method",
    "description",
    "off_session",
    "confirm",
    "automatic_payment_methods[",
    "metadata[",
    "expand[",
];
/// Least that can be charged, in cents of a dollar.
const LEAST: i64 = 50;
/// How long a session can be paid, in seconds.
const OPEN_FOR: i64 = 24 * 60 * 60;

impl State {
    pub(super) fn open_session(&mut self, asked: &Asked) -> Result<Value, Refused> {
        asked.only(&OF_SESSIONS)?;
        let mode = asked.needed("mode")?;
        asked.needed("success_url")?;
        let customer = self.customer_of(asked, mode)?;
        let (amount, currency) = match mode {
            "payment" => {
                let amount = asked.amount("line_items[0][price_data][unit_amount]")?;
                asked.needed("line_items[0][price_data][product_data][name]")?;
                asked.amount("line_items[0][quantity]")?;
                large_enough(amount)?;
                (Some(amount), asked.needed("line_items[0][price_data][currency]")?)
            }
            "setup" if !asked.map("line_items").as_object().is_some_and(serde_json::Map::is_empty) => {
                return Err(Refused::invalid("You can not pass `line_items` in `setup` mode."));
            }
            "setup" => (None, asked.needed("currency")?),
            _ => return Err(Refused::param("parameter_invalid", "mode", "Invalid mode")),
        };
        let invoice = asked.is_on("invoice_creation[enabled]");
        let session = self.make("checkout.session", "cs_test", json!({
            "mode": mode, "amount_subtotal": amount, "amount_total": amount, "currency": currency, "customer": customer,
            "client_reference_id": asked.get("client_reference_id"), "metadata": asked.map("metadata"),
            "customer_email": asked.get("customer_email"), "customer_creation": asked.get("customer_creation"),
            "success_url": asked.get("success_url"), "cancel_url": asked.get("cancel_url"), "expires_at": self.now + OPEN_FOR,
            "billing_address_collection": asked.get("billing_address_collection"),
            "invoice_creation": (mode == "payment").then(|| json!({ "enabled": invoice, "invoice_data": { "metadata": {} } })),
            "tax_id_collection": { "enabled": asked.is_on("tax_id_collection[enabled]"), "required": "never" },
            "payment_status": if mode == "setup" { "no_payment_required" } else { "unpaid" },
        }));
        self.set(&session, json!({ "url": format!("https://checkout.stripe.example/c/pay/{session}") }));
        let of = |data: &str| asked.map(&format!("{data}[metadata]"));
        let metadata = if mode == "setup" { of("setup_intent_data") } else { of("payment_intent_data") };
        let keeps = asked.get("payment_intent_data[setup_future_usage]") == Some("off_session");
        self.intended.insert(session.clone(), (metadata, keeps));
        self.one("checkout.session", &session, asked)
    }

    /// Stripe's rules for who pays and what may be asked of them.
    fn customer_of(&self, asked: &Asked, mode: &str) -> Result<Option<String>, Refused> {
        let collects = asked.is_on("tax_id_collection[enabled]");
        if mode == "setup" && collects {
            return Err(Refused::invalid("Tax ID collection is not supported in `setup` mode."));
        }
        let Some(customer) = asked.get("customer") else {
            let updates = asked.map("customer_update").as_object().is_some_and(|all| !all.is_empty());
            return match updates {
                true => Err(Refused::invalid("`customer_update` can only be used with `customer`.")),
                false => Ok(None),
            };
        };
        for other in ["customer_email", "customer_creation"] {
            if asked.get(other).is_some() {
                return Err(Refused::invalid(&format!(
                    "You may only specify one of these parameters: customer, {other}."
                )));
            }
        }
        if collects && asked.get("customer_update[name]") != Some("auto") {
            return Err(Refused::invalid(
                "Tax ID collection requires updating business name on the customer. To enable tax ID collection for an existing \
                 customer, please set `customer_update[name]` to `auto`.",
            ));
        }
        match self.is(customer, "customer") {
            true => Ok(Some(customer.to_owned())),
            false => Err(Refused::missing(400, "customer", customer)),
        }
    }

    /// A payment without its buyer.
    pub(super) fn charge_saved(&mut self, asked: &Asked) -> Result<Value, Refused> {
        asked.only(&OF_INTENTS)?;
        let (amount, currency) = (asked.amount("amount")?, asked.needed("currency")?);
        let (customer, method) = (asked.needed("customer")?, asked.needed("payment_method")?);
        large_enough(amount)?;
        if !asked.is_on("confirm") || !asked.is_on("off_session") {
            return Err(Refused::invalid(
                "The fake only charges what was saved: `confirm` and `off_session` are missing.",
            ));
        }
        if !self.is(method, "payment_method") {
            return Err(Refused::missing(400, "PaymentMethod", method));
        }
        if self.text(method, "customer").as_deref() != Some(customer) {
            return Err(Refused::invalid("The PaymentMethod does not belong to this Customer."));
        }
        let intent = self
            .intend(json!({ "amount": amount, "currency": currency, "customer": customer, "payment_method": method,
            "metadata": asked.map("metadata"), "description": asked.get("description") }));
        let declined = match self.outcomes.get(method).cloned().unwrap_or_default() {
            SavedOutcome::Paid => {
                self.succeed(&intent);
                None
            }
            SavedOutcome::Processing => None,
            SavedOutcome::Declined(reason) => Some(self.decline(&intent, "card_declined", &reason)),
            SavedOutcome::NeedsCustomer => {
                Some(self.decline(&intent, "authentication_required", "authentication_required"))
            }
        };
        match declined {
            None => self.one("payment_intent", &intent, asked),
            Some(mut error) => {
                error["payment_intent"] = self.told(&intent).unwrap_or_default();
                Err(Refused(402, error))
            }
        }
    }
}

fn large_enough(amount: i64) -> Result<(), Refused> {
    match amount {
        LEAST.. => Ok(()),
        _ => Err(Refused::param("amount_too_small", "amount", "Amount must be at least $0.50 usd")),
    }
}
