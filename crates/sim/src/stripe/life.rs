//! Holds: what buyers, banks and the operator do to the fake Stripe's objects, and the events of it.

use serde_json::{Value, json};

use super::{objects::State, script::DisputeEnd};

/// What Stripe keeps for a dispute, in cents.
const DISPUTE_FEE: i64 = 1_500;

impl State {
    /// The buyer is through, with the money or without it yet.
    pub(super) fn complete(&mut self, session: &str, paid: bool) -> Option<String> {
        if self.text(session, "status")? != "open" {
            return None;
        }
        let email = self.text(session, "customer_email").unwrap_or_else(|| "jenny@example.com".to_owned());
        let given = self.text(session, "customer");
        let customer =
            given.unwrap_or_else(|| self.make("customer", "cus", json!({ "email": email, "name": "Jenny Rosen" })));
        let address = json!({ "city": "Berlin", "country": "DE", "line1": "Torstraße 1", "line2": null, "postal_code": "10119", "state": null });
        let details = json!({ "address": address, "business_name": null, "email": email, "individual_name": null, "name": "Jenny Rosen",
            "phone": null, "tax_exempt": "none", "tax_ids": [{ "type": "eu_vat", "value": "DE123456789" }] });
        self.set(
            session,
            json!({ "status": "complete", "url": null, "customer": customer, "customer_details": details }),
        );
        let (metadata, keeps) = self.intended.remove(session).unwrap_or_default();
        let is_setup = self.text(session, "mode").as_deref() == Some("setup");
        let owner = (keeps || is_setup).then_some(&customer);
        let method = self.make("payment_method", "pm", json!({ "customer": owner }));
        if is_setup {
            let members = json!({ "customer": customer, "payment_method": method, "metadata": metadata });
            let setup = self.make("setup_intent", "seti", members);
            self.set(session, json!({ "setup_intent": setup, "payment_status": "no_payment_required" }));
            self.happens("checkout.session.completed", session);
            return Some(method);
        }
        let (amount, currency) = (self.get(session, "amount_total"), self.get(session, "currency"));
        let intent = self
            .intend(json!({ "amount": amount, "currency": currency, "customer": customer, "metadata": metadata,
            "payment_method": method, "setup_future_usage": keeps.then_some("off_session") }));
        self.set(session, json!({ "payment_intent": intent }));
        if paid {
            self.set(session, json!({ "payment_status": "paid" }));
            self.succeed(&intent);
            self.invoice(session);
        }
        self.happens("checkout.session.completed", session);
        Some(intent)
    }

    fn invoice(&mut self, session: &str) {
        if self.get(session, "invoice_creation")["enabled"] != true {
            return;
        }
        let amount = self.get(session, "amount_total");
        let id = self.make(
            "invoice",
            "in",
            json!({ "amount_due": amount, "amount_paid": amount, "subtotal": amount, "total": amount,
            "currency": self.get(session, "currency"), "customer": self.get(session, "customer") }),
        );
        let page = format!("https://invoice.stripe.example/i/{id}");
        self.set(
            &id,
            json!({ "hosted_invoice_url": page, "invoice_pdf": format!("{page}/pdf"), "number": "FAKE-0001" }),
        );
        self.set(session, json!({ "invoice": id }));
    }

    /// A payment intent that is under way.
    pub(super) fn intend(&mut self, members: Value) -> String {
        let intent = self.make("payment_intent", "pi", members);
        self.set(&intent, json!({ "status": "processing", "client_secret": format!("{intent}_secret_fake") }));
        intent
    }

    /// A charge of a payment intent, which may have failed.
    fn charge(&mut self, intent: &str, paid: bool) -> String {
        let amount = self.number(intent, "amount");
        let taken = if paid { amount } else { 0 };
        let status = if paid { "succeeded" } else { "failed" };
        let charge = self.make("charge", "ch", json!({ "amount": amount, "amount_captured": taken, "captured": paid, "paid": paid,
            "status": status, "currency": self.get(intent, "currency"), "customer": self.get(intent, "customer"),
            "metadata": self.get(intent, "metadata"), "payment_intent": intent, "payment_method": self.get(intent, "payment_method") }));
        let receipt = paid.then(|| format!("https://pay.stripe.example/receipts/{charge}"));
        self.set(&charge, json!({ "receipt_url": receipt }));
        self.set(intent, json!({ "latest_charge": charge }));
        charge
    }

    pub(super) fn succeed(&mut self, intent: &str) {
        let charge = self.charge(intent, true);
        let moved = self.moved(&charge, self.number(intent, "amount"), 0, "charge");
        self.set(&charge, json!({ "balance_transaction": moved }));
        self.set(intent, json!({ "status": "succeeded", "amount_received": self.get(intent, "amount") }));
        self.happens("charge.succeeded", &charge);
        self.happens("payment_intent.succeeded", intent);
    }

    /// The error that the payment intent then has.
    pub(super) fn decline(&mut self, intent: &str, code: &str, decline_code: &str) -> Value {
        let charge = self.charge(intent, false);
        let error = json!({ "charge": charge, "code": code, "decline_code": decline_code, "message": "Your card was declined.",
            "doc_url": format!("https://stripe.com/docs/error-codes/{code}"), "type": "card_error" });
        let last = json!({ "status": "requires_payment_method", "last_payment_error": error, "payment_method": null });
        self.set(intent, last);
        self.happens("charge.failed", &charge);
        self.happens("payment_intent.payment_failed", intent);
        error
    }

    pub(super) fn settle(&mut self, intent: &str, succeeds: bool) {
        if self.text(intent, "status").as_deref() != Some("processing") {
            return;
        }
        match succeeds {
            true => self.succeed(intent),
            false => drop(self.decline(intent, "payment_intent_payment_attempt_failed", "generic_decline")),
        }
        let of = |id: &String| self.text(id, "payment_intent").as_deref() == Some(intent);
        let Some(session) = self.ids_of("checkout.session").into_iter().find(of) else { return };
        if succeeds {
            self.set(&session, json!({ "payment_status": "paid" }));
            self.invoice(&session);
            self.happens("checkout.session.async_payment_succeeded", &session);
        } else {
            self.happens("checkout.session.async_payment_failed", &session);
        }
    }

    pub(super) fn expire(&mut self, session: &str) {
        if self.text(session, "status").as_deref() == Some("open") {
            self.set(session, json!({ "status": "expired", "url": null }));
            self.happens("checkout.session.expired", session);
        }
    }

    /// A movement of the merchant's balance.
    fn moved(&mut self, source: &str, amount: i64, fee: i64, category: &str) -> String {
        let kind = if category.starts_with("dispute") { "adjustment" } else { category };
        let members = json!({ "amount": amount, "fee": fee, "net": amount - fee, "reporting_category": category, "type": kind,
            "source": source, "currency": self.get(source, "currency"), "available_on": self.now });
        self.make("balance_transaction", "txn", members)
    }

    pub(super) fn refund(&mut self, intent: &str, amount: i64, pending: bool) -> Option<String> {
        let charge = self.text(intent, "latest_charge")?;
        let status = if pending { "pending" } else { "succeeded" };
        let refund = self.make(
            "refund",
            "re",
            json!({ "amount": amount, "charge": charge, "currency": self.get(intent, "currency"),
            "payment_intent": intent, "reason": "requested_by_customer", "status": status,
            "pending_reason": pending.then_some("processing") }),
        );
        let moved = self.moved(&refund, -amount, 0, "refund");
        self.set(&refund, json!({ "balance_transaction": moved }));
        self.count_refunded(&charge, amount);
        self.happens("refund.created", &refund);
        self.happens("charge.refunded", &charge);
        Some(refund)
    }

    fn count_refunded(&mut self, charge: &str, amount: i64) {
        let refunded = self.number(charge, "amount_refunded") + amount;
        let is_all = refunded >= self.number(charge, "amount");
        self.set(charge, json!({ "amount_refunded": refunded, "refunded": is_all }));
    }

    pub(super) fn end_refund(&mut self, refund: &str, status: &str) {
        let comes_back = matches!(status, "failed" | "canceled");
        let was = self.text(refund, "status");
        self.set(refund, json!({ "status": status, "pending_reason": null }));
        if comes_back && !matches!(was.as_deref(), Some("failed" | "canceled")) {
            let amount = self.number(refund, "amount");
            let moved = self.moved(refund, amount, 0, "refund_failure");
            self.set(refund, json!({ "failure_reason": "unknown", "failure_balance_transaction": moved }));
            if let Some(charge) = self.text(refund, "charge") {
                self.count_refunded(&charge, -amount);
            }
        }
        self.happens("refund.updated", refund);
        self.happens("charge.refund.updated", refund);
        if status == "failed" {
            self.happens("refund.failed", refund);
        }
    }

    pub(super) fn dispute(&mut self, intent: &str, amount: i64, inquiry: bool) -> Option<String> {
        let charge = self.text(intent, "latest_charge")?;
        let status = if inquiry { "warning_needs_response" } else { "needs_response" };
        let dispute = self.make(
            "dispute",
            "du",
            json!({ "amount": amount, "charge": charge, "currency": self.get(intent, "currency"),
            "payment_intent": intent, "status": status, "is_charge_refundable": inquiry }),
        );
        self.set(&charge, json!({ "disputed": true }));
        self.happens("charge.dispute.created", &dispute);
        if !inquiry {
            self.withdraw(&dispute);
        }
        Some(dispute)
    }

    fn withdraw(&mut self, dispute: &str) {
        self.moves_money(dispute, -self.number(dispute, "amount"), DISPUTE_FEE, "dispute");
        self.happens("charge.dispute.funds_withdrawn", dispute);
    }

    fn moves_money(&mut self, dispute: &str, amount: i64, fee: i64, category: &str) {
        let moved = self.moved(dispute, amount, fee, category);
        let mut all = self.get(dispute, "balance_transactions");
        if let (Value::Array(all), Some(moved)) = (&mut all, self.objects.get(&moved)) {
            all.push(moved.clone());
        }
        self.set(dispute, json!({ "balance_transactions": all }));
    }

    pub(super) fn escalate(&mut self, dispute: &str) {
        self.set(dispute, json!({ "status": "needs_response", "is_charge_refundable": false }));
        self.happens("charge.dispute.updated", dispute);
        self.withdraw(dispute);
    }

    pub(super) fn end_dispute(&mut self, dispute: &str, end: DisputeEnd) {
        let status = match end {
            DisputeEnd::Won => "won",
            DisputeEnd::Lost => "lost",
            DisputeEnd::WarningClosed => "warning_closed",
        };
        self.set(dispute, json!({ "status": status }));
        if end == DisputeEnd::Won {
            self.moves_money(dispute, self.number(dispute, "amount"), -DISPUTE_FEE, "dispute_reversal");
            self.happens("charge.dispute.funds_reinstated", dispute);
        }
        self.happens("charge.dispute.closed", dispute);
    }
}
