// Stripe's own package for Node as an oracle: it reads the fake's objects, verifies its signatures, and signs for ours.
// crates/stripe/tests/oracles.rs starts the fake and runs this. The first check that fails ends the run.

import assert from "node:assert/strict";
import { createRequire } from "node:module";

const require = createRequire(`${process.env.SDK_NODE_MODULES}/`);
const Stripe = require("stripe");
const Constructor = Stripe.default ?? Stripe.Stripe ?? Stripe;

const facts = JSON.parse(process.env.STRIPE_FACTS);
const url = new URL(facts.url);
const stripe = new Constructor(facts.key, {
  host: url.hostname,
  port: Number(url.port),
  protocol: "http",
  // The package asks twice more unless it is told not to.
  maxNetworkRetries: 0,
  telemetry: false,
});

const session = await stripe.checkout.sessions.retrieve(facts.session, {
  expand: ["payment_intent.latest_charge", "invoice"],
});
assert.equal(session.amount_total, facts.amount);
assert.equal(session.payment_intent.latest_charge.amount_captured, facts.amount);
assert.equal(session.invoice.number, "FAKE-0001");
assert.equal(session.customer_details.tax_ids[0].type, "eu_vat");
const payment = await stripe.paymentIntents.retrieve(facts.payment);
assert.equal(payment.metadata.batchin_topup, "t-1");
const refund = await stripe.refunds.retrieve(facts.refund);
assert.deepEqual([refund.amount, refund.status], [facts.refunded, "succeeded"]);
const dispute = await stripe.disputes.retrieve(facts.dispute);
assert.deepEqual(dispute.balance_transactions.map((moved) => moved.amount), [-facts.amount]);
const refunds = await stripe.refunds.list({ payment_intent: facts.payment, limit: 1 }).autoPagingToArray({ limit: 10 });
assert.equal(refunds.length, 2);
const declined = await stripe.paymentIntents
  .create({ amount: 1000, currency: "usd", customer: facts.customer, payment_method: facts.method, off_session: true, confirm: true })
  .catch((error) => error);
assert.equal(declined.type, "StripeCardError");
assert.deepEqual([declined.code, declined.decline_code], ["card_declined", "do_not_honor"]);
assert.ok(declined.payment_intent.id);
await assert.rejects(stripe.refunds.retrieve("re_none"), { type: "StripeInvalidRequestError", code: "resource_missing" });

const order = {
  mode: "payment",
  success_url: "https://example.org/",
  client_reference_id: "from-node",
  metadata: { batchin_topup: "from-node" },
  line_items: [{ quantity: 1, price_data: { currency: "usd", unit_amount: 99_999_999, product_data: { name: "Credit" } } }],
};
await stripe.checkout.sessions.create(order, { idempotencyKey: "node-1" });
await assert.rejects(
  stripe.checkout.sessions.create({ ...order, client_reference_id: "other" }, { idempotencyKey: "node-1" }),
  { type: "StripeIdempotencyError" },
);

for (const { body, signature } of facts.webhooks) {
  const event = stripe.webhooks.constructEvent(body, signature, facts.secret);
  assert.equal(event.object, "event");
  assert.throws(() => stripe.webhooks.constructEvent(`${body} `, signature, facts.secret));
}

// What it signs and how it writes what it read, for ours to read.
const payload = JSON.stringify(stripe.webhooks.constructEvent(facts.webhooks[0].body, facts.webhooks[0].signature, facts.secret), null, 2);
const header = stripe.webhooks.generateTestHeaderString({ payload, secret: facts.secret });
const old = stripe.webhooks.generateTestHeaderString({ payload, secret: facts.secret, timestamp: facts.now - 301 });
console.log(JSON.stringify({ payload, header, old, session: JSON.stringify(session), reference: "from-node" }));
