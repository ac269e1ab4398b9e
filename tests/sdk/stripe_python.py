"""Stripe's own package for Python as an oracle: it reads the fake's objects, verifies its signatures, and signs for ours.

crates/stripe/tests/oracles.rs starts the fake and runs this. The first check that fails ends the run.
"""

import json
import os

import stripe
from stripe import checkout

facts = json.loads(os.environ["STRIPE_FACTS"])
client = stripe.StripeClient(
    facts["key"],
    base_addresses={"api": facts["url"]},
    # The default, which is twice elsewhere in this package.
    max_network_retries=0,
    # Proxies of the environment would be asked for the loopback address.
    http_client=stripe.RequestsClient(proxy={"http": "", "https": ""}),
)
api = client.v1


def whole(kind, body):
    """The body has every member that the package says is always there, and none that it does not know."""
    known = {name for name in kind.__annotations__ if name.islower() and not name.startswith("_")}
    may_be_none = {name for name in known if any(word in str(kind.__annotations__[name]) for word in ("Optional", "None"))}
    members = body.to_dict()
    missing = known - set(members) - {"deleted", "line_items", "refunds"}
    assert not missing, (kind, missing)
    assert set(members) <= known, (kind, set(members) - known)
    none = {name for name in known - may_be_none if name in members and members[name] is None}
    assert not none, (kind, none)


session = api.checkout.sessions.retrieve(
    facts["session"], params={"expand": ["payment_intent.latest_charge", "invoice", "customer"]}
)
whole(checkout.Session, session)
whole(stripe.PaymentIntent, session.payment_intent)
whole(stripe.Charge, session.payment_intent.latest_charge)
assert session.amount_total == facts["amount"] and type(session.amount_total) is int
assert session.payment_intent.latest_charge.amount_captured == facts["amount"]
assert session.customer.email == session.customer_details.email
refund = api.refunds.retrieve(facts["refund"])
whole(stripe.Refund, refund)
assert (refund.amount, refund.status) == (facts["refunded"], "succeeded")
dispute = api.disputes.retrieve(facts["dispute"])
whole(stripe.Dispute, dispute)
whole(stripe.BalanceTransaction, dispute.balance_transactions[0])
assert [moved.amount for moved in dispute.balance_transactions] == [-facts["amount"]]
pages = api.refunds.list(params={"payment_intent": facts["payment"], "limit": 1})
assert len(list(pages.auto_paging_iter())) == 2
assert len(list(api.events.list(params={"limit": 100}).auto_paging_iter())) >= len(facts["webhooks"])

charge = {"amount": 1000, "currency": "usd", "customer": facts["customer"], "payment_method": facts["method"]}
try:
    api.payment_intents.create(params={**charge, "off_session": True, "confirm": True})
    raise AssertionError("a declined card was charged")
except stripe.CardError as error:
    assert (error.code, error.error.decline_code) == ("card_declined", "do_not_honor")
    assert error.error.payment_intent.id
try:
    api.refunds.retrieve("re_none")
    raise AssertionError("there is a refund that is none")
except stripe.InvalidRequestError as error:
    assert error.code == "resource_missing"

order = {
    "mode": "payment",
    "success_url": "https://example.org/",
    "client_reference_id": "from-python",
    "metadata": {"batchin_topup": "from-python"},
    "line_items": [
        {"quantity": 1, "price_data": {"currency": "usd", "unit_amount": 99_999_999, "product_data": {"name": "Credit"}}}
    ],
}
api.checkout.sessions.create(params=order, options={"idempotency_key": "python-1"})
try:
    api.checkout.sessions.create(params={**order, "client_reference_id": "o"}, options={"idempotency_key": "python-1"})
    raise AssertionError("a key was taken for something else")
except stripe.IdempotencyError:
    pass

for webhook in facts["webhooks"]:
    event = stripe.Webhook.construct_event(webhook["body"], webhook["signature"], facts["secret"])
    assert event.object == "event"
    try:
        stripe.Webhook.construct_event(webhook["body"] + " ", webhook["signature"], facts["secret"])
        raise AssertionError("a body that was touched is verified")
    except stripe.SignatureVerificationError:
        pass

first = facts["webhooks"][0]
payload = str(stripe.Webhook.construct_event(first["body"], first["signature"], facts["secret"]))


def signed(time):
    signature = stripe.WebhookSignature._compute_signature(f"{time}.{payload}", facts["secret"])
    return f"t={time},v1={signature}"


header, old = signed(facts["now"]), signed(facts["now"] - 301)
print(json.dumps({"payload": payload, "header": header, "old": old, "session": str(session), "reference": "from-python"}))
