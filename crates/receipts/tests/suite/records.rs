//! Holds: records: what is signed, and that nothing of what is handed out can be changed.

use batchin_receipts::{
    Checkpoint, Edge, Hash, Record, ShownLog, ShownRecord, SigningKey, Source, Tiles, Unsound, VerifyingKey, entry_of,
    leaf_hash, verify_record,
};
use serde_json::Value;

const ORIGIN: &str = "batchin.example/audit/log";

fn record() -> Record {
    Record {
        audit_id: "01a2".to_owned(),
        account_id: "acc".to_owned(),
        created_at: "2026-12-01T00:00:00Z".to_owned(),
        source: Source::ClientAsserted,
        input_hash: Hash::of("héllo".as_bytes()).hex(),
        output_hash: Hash::of(b"").hex(),
        model_id: "qwen \"3\"\u{7f}\u{1}".to_owned(),
        gpu_id: None,
        blind: "00".repeat(32),
    }
}

fn shown(signer: &SigningKey) -> ShownRecord {
    let record = record();
    let payload = record.payload();
    let mut edge = Edge::default();
    for number in 0..7 {
        edge.append(leaf_hash(&[number]));
    }
    edge.append(leaf_hash(entry_of(&payload).bytes()));
    edge.append(leaf_hash(b"after"));
    let mut tiles = Tiles::new(edge.size());
    tiles.put(0, 0, edge.levels()[0].clone());
    let checkpoint = Checkpoint { origin: ORIGIN.parse().unwrap(), size: edge.size(), root: edge.root() };
    ShownRecord {
        audit_id: record.audit_id,
        input_hash: record.input_hash,
        output_hash: record.output_hash,
        model_id: record.model_id,
        gpu_id: record.gpu_id,
        source: "client_asserted".to_owned(),
        created_at: record.created_at,
        signature: hex::encode(signer.sign_record(&payload)),
        key_id: signer.verifying().id().to_string(),
        signed_payload: payload,
        log: Some(ShownLog {
            origin: ORIGIN.to_owned(),
            index: 7,
            inclusion_proof: tiles.inclusion(7).unwrap().iter().map(Hash::to_string).collect(),
            checkpoint: checkpoint.sign(signer).to_text(),
        }),
    }
}

fn keys(signer: &SigningKey) -> [VerifyingKey; 1] {
    [signer.verifying()]
}

#[test]
fn the_signed_bytes_are_one_form_of_json() {
    let payload = record().payload();
    let expected = format!(
        r#"{{"account_id":"acc","audit_id":"01a2","blind":"{}","created_at":"2026-12-01T00:00:00Z","input_hash":"{}","model_id":"qwen \"3\"{}\u0001","output_hash":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","source":"client_asserted","version":"1"}}"#,
        "00".repeat(32),
        Hash::of("héllo".as_bytes()).hex(),
        '\u{7f}',
    );
    assert_eq!(payload, expected);
    assert_eq!(Record::parse(&payload).unwrap(), record());
    let with_gpu = Record { gpu_id: Some("H200".to_owned()), source: Source::Gateway, ..record() };
    assert_eq!(Record::parse(&with_gpu.payload()).unwrap(), with_gpu);
    let mut newer: serde_json::Map<String, Value> = serde_json::from_str(&payload).unwrap();
    newer.insert("zone".to_owned(), "eu".into());
    assert_eq!(Record::parse(&Value::Object(newer).to_string()).unwrap(), record());
    for wrong in [
        "",
        "[]",
        "{}",
        "{\"a\":1}",
        &payload.replace("\":\"", "\": \""),
        &payload.replace("\"version\":\"1\"", "\"version\":\"2\""),
    ] {
        assert!(Record::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_record_is_in_order_as_it_was_handed_out() {
    let signer = SigningKey::from_seed(&[1; 32]).unwrap();
    let shown = shown(&signer);
    let checked = verify_record(&shown, &keys(&signer), &[]).unwrap();
    assert_eq!((checked.record, checked.checkpoint.unwrap().size, checked.signed_by.len()), (record(), 9, 1));
    let waiting = ShownRecord { log: None, ..shown.clone() };
    assert_eq!(verify_record(&waiting, &keys(&signer), &[]).unwrap().checkpoint, None);
    let other = SigningKey::from_seed(&[2; 32]).unwrap();
    assert_eq!(verify_record(&shown, &keys(&other), &[]), Err(Unsound::Key));
}

#[test]
fn nothing_of_a_record_can_be_changed() {
    let signer = SigningKey::from_seed(&[1; 32]).unwrap();
    let text = serde_json::to_string(&shown(&signer)).unwrap();
    let before = serde_json::from_str::<Value>(&text).unwrap();
    let bytes = text.as_bytes();
    let mut refused = 0;
    for place in 0..bytes.len() {
        for bit in 0..8 {
            let mut bent = bytes.to_vec();
            bent[place] ^= 1 << bit;
            let Ok(bent) = serde_json::from_slice::<ShownRecord>(&bent) else { continue };
            if serde_json::to_value(&bent).unwrap() == before {
                continue;
            }
            assert!(verify_record(&bent, &keys(&signer), &[]).is_err(), "bit {bit} of byte {place}: {bent:?}");
            refused += 1;
        }
    }
    assert!(refused > 5_000, "{refused}");
}
