//! Checks: what is read of a payment, what is refused of one, and that a facilitator is sent nothing else.

use super::super::TokenDomain;
use super::*;
use crate::chain::{BASE, POLYGON};

/// When it was signed, in seconds.
const NOW: i64 = 1_796_099_537;
const OURS: &str = "0x9858EfFD232B4033E47d90003D41EC34EcaEda94";
const OTHER: &str = "0x2c7536E3605D9C16a7a3D7b1898e529396a65c23";

/// As @x402/fetch 2.27.0 sends it.
fn signed() -> Value {
    let mut payment: Value = serde_json::from_str(include_str!("signed.json")).unwrap();
    payment["of_later"] = json!({ "let": "be" });
    payment
}

fn offered() -> Vec<Requirement> {
    [&POLYGON, &BASE]
        .map(|chain| {
            let domain = TokenDomain::of_known(chain.id).unwrap();
            Requirement::new(chain, domain, OURS.parse().unwrap(), 1_000_000)
        })
        .to_vec()
}

fn read(payment: &Value) -> Result<Payment, PaymentForm> {
    Payment::parse(STANDARD.encode(payment.to_string()).as_bytes())
}

#[test]
fn a_payment_is_read_and_passed_on_as_it_was_signed() {
    let payment = read(&signed()).unwrap();
    let met = payment.meets(&offered(), NOW).unwrap();
    let order = payment.order(&met);
    assert_eq!(order["paymentRequirements"], signed()["accepted"]);
    assert_eq!(order["paymentPayload"]["accepted"], signed()["accepted"]);
    assert_eq!(order["paymentPayload"]["payload"], signed()["payload"]);
    assert_eq!(order["paymentPayload"].as_object().unwrap().len(), 3, "nothing of the client's is passed on unread");
}

#[test]
fn what_was_not_asked_for_is_refused_before_anybody_is_asked() {
    let check = |change: &dyn Fn(&mut Value), now: i64, expected: PaymentFault| {
        let mut payment = signed();
        change(&mut payment);
        assert_eq!(read(&payment).unwrap().meets(&offered(), now), Err(expected));
    };
    let of = |pointer: &'static str, value: &'static str| {
        move |payment: &mut Value| *payment.pointer_mut(pointer).unwrap() = json!(value)
    };
    let same = |_: &mut Value| {};
    check(&of("/accepted/network", "eip155:1"), NOW, PaymentFault::Network);
    check(&of("/accepted/asset", OTHER), NOW, PaymentFault::Asset);
    check(&of("/accepted/payTo", OTHER), NOW, PaymentFault::PayTo);
    check(&of("/payload/authorization/to", OTHER), NOW, PaymentFault::PayTo);
    let least = PaymentFault::Underpaid { least: 1_000_000 };
    check(&of("/payload/authorization/value", "999999"), NOW, least);
    let both = |payment: &mut Value| {
        of("/payload/authorization/value", "1")(payment);
        of("/accepted/amount", "1")(payment);
    };
    check(&both, NOW, least);
    check(&of("/accepted/amount", "2000000"), NOW, PaymentFault::Amount);
    check(&of("/payload/authorization/value", "1000001"), NOW, PaymentFault::Amount);
    check(&same, NOW + 295, PaymentFault::Expired);
    check(&of("/payload/authorization/validBefore", "0"), NOW, PaymentFault::Expired);
    check(&of("/payload/authorization/validAfter", "1796099538"), NOW, PaymentFault::TooEarly);
    assert!(read(&signed()).unwrap().meets(&offered(), NOW + 294).is_ok());
    let mut more = signed();
    of("/payload/authorization/value", "7000000")(&mut more);
    of("/accepted/amount", "7000000")(&mut more);
    assert_eq!(read(&more).unwrap().meets(&offered(), NOW).unwrap().amount(), 7_000_000, "more is welcome");
}

#[test]
fn what_is_no_payment_says_which_member_is_wrong() {
    let check = |pointer: &str, value: Value, expected: &str| {
        let mut payment = signed();
        *payment.pointer_mut(pointer).unwrap() = value;
        assert_eq!(read(&payment).unwrap_err().to_string(), expected, "{pointer}");
    };
    check("/x402Version", json!(1), "its `x402Version` must be 2");
    let scheme = "its scheme must be `exact`, signed as TransferWithAuthorization (EIP-3009)";
    check("/accepted/scheme", json!("upto"), scheme);
    check("/payload", json!({ "permit2Authorization": {}, "signature": "0x00" }), scheme);
    let number = "must be a whole number in a text";
    for value in ["", "-1", "+1", "1e6", "1.0", "340282366920938463463374607431768211456"] {
        check("/accepted/amount", json!(value), &format!("its `accepted.amount` {number}"));
    }
    check(
        "/payload/authorization/validBefore",
        json!("1.5"),
        &format!("its `payload.authorization.validBefore` {number}"),
    );
    check("/payload/signature", json!("0x0"), "its `payload.signature` must be 0x and hexadecimal digits");
    check(
        "/payload/authorization/nonce",
        json!("0x12"),
        "its `payload.authorization.nonce` must be 0x and 64 hexadecimal digits",
    );
    check(
        "/payload/authorization/from",
        json!("0x2C7536E3605D9C16a7a3D7b1898e529396a65c23"),
        "its `payload.authorization.from` must be an address: 0x and 40 hexadecimal digits",
    );
    for header in ["", "e30=", "e30", "!", "bnVsbA=="] {
        assert_eq!(Payment::parse(header.as_bytes()), Err(PaymentForm::Unreadable), "{header}");
    }
    assert_eq!(Payment::parse(&[b'A'; MAX_HEADER_BYTES + 4]), Err(PaymentForm::Unreadable));
}
