//! Holds: notes, checkpoints, proofs as text, keys.

use batchin_receipts::{
    BadCheckpoint, BadNote, BadRotation, Checkpoint, Hash, LogProof, Note, NoteKey, Rotation, SigningKey, VerifyingKey,
    leaf_hash, rotation_entry,
};

const ORIGIN: &str = "batchin.example/audit/log";

fn signer(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32]).unwrap()
}

fn checkpoint() -> Checkpoint {
    Checkpoint { origin: ORIGIN.parse().unwrap(), size: 42, root: leaf_hash(b"root") }
}

#[test]
fn a_checkpoint_is_read_as_it_was_signed() {
    let (log, witness, stranger) = (signer(1), signer(2), signer(3));
    let checkpoint = checkpoint();
    let mut note = checkpoint.sign(&log);
    let witness_key = NoteKey::of_witness("witness.example/w1", witness.verifying());
    note.signatures.push(witness_key.cosign(&witness, &note.text, 1_790_000_000));
    note.signatures.push(NoteKey::of_log("stranger.example", stranger.verifying()).sign(&stranger, &note.text));
    let text = note.to_text();
    assert_eq!(Note::parse(&text).unwrap(), note);
    let log_key = NoteKey::of_log(ORIGIN, log.verifying());
    let keys = [log_key.clone(), witness_key.clone()];
    let (read, by) = Checkpoint::verified(&text, &checkpoint.origin, &keys).unwrap();
    assert_eq!((read, by), (checkpoint.clone(), vec![&log_key, &witness_key]));
    for key in keys {
        assert_eq!(NoteKey::parse(&key.text()).unwrap(), key);
    }
    // Extension lines are signed with it.
    let extended = format!("{}more\n", checkpoint.text());
    assert_eq!(Checkpoint::parse(&extended).unwrap(), checkpoint);
}

#[test]
fn a_checkpoint_that_is_changed_anywhere_is_none() {
    let (log, witness) = (signer(1), signer(2));
    let checkpoint = checkpoint();
    let mut note = checkpoint.sign(&log);
    let witness_key = NoteKey::of_witness("witness.example/w1", witness.verifying());
    note.signatures.push(witness_key.cosign(&witness, &note.text, 1_790_000_000));
    let keys = [NoteKey::of_log(ORIGIN, log.verifying()), witness_key];
    let text = note.to_text().into_bytes();
    for place in 0..text.len() {
        for bit in 0..8 {
            let mut bent = text.clone();
            bent[place] ^= 1 << bit;
            let Ok(bent) = String::from_utf8(bent) else { continue };
            match Checkpoint::verified(&bent, &checkpoint.origin, &keys) {
                // A line whose name or key nobody knows is passed over: the other one stands.
                Ok((read, by)) => assert_eq!((read, by.len()), (checkpoint.clone(), 1), "{place} {bit}"),
                Err(BadCheckpoint::Form | BadCheckpoint::OtherLog | BadCheckpoint::Note(_)) => {}
            }
        }
    }
    let foreign = Checkpoint { origin: "other.example".parse().unwrap(), ..checkpoint }.sign(&log).to_text();
    let others = [NoteKey::of_log("other.example", log.verifying())];
    assert_eq!(Checkpoint::verified(&foreign, &checkpoint.origin, &others), Err(BadCheckpoint::OtherLog));
    let unsigned = [NoteKey::of_log(ORIGIN, signer(9).verifying())];
    let text = checkpoint.sign(&log).to_text();
    assert_eq!(Checkpoint::verified(&text, &checkpoint.origin, &unsigned), Err(BadNote::Unsigned.into()));
    // A witness alone is not the log.
    let witness = [NoteKey::of_witness("witness.example/w1", witness.verifying())];
    let note = note.to_text();
    assert_eq!(Checkpoint::verified(&note, &checkpoint.origin, &witness), Err(BadNote::Unsigned.into()));
}

#[test]
fn what_is_no_note_or_checkpoint_is_refused() {
    for wrong in [
        "",
        "\n\n",
        "text",
        "text\n",
        "text\n\n",
        "text\n\n\u{2014} a\n",
        "text\n\n\u{2014} a AAAA\n",
        "text\n\n- a AAAAAAAA\n",
        "text\n\n\u{2014} a AAAAAAAA",
        "te\txt\n\n\u{2014} a AAAAAAAA\n",
        "text\n\n\u{2014} a+b AAAAAAAA\n",
    ] {
        assert_eq!(Note::parse(wrong), Err(BadNote::Form), "{wrong:?}");
    }
    let root = Hash::of(b"");
    for wrong in [
        format!("a\n1\n{root}"),
        format!("a\n01\n{root}\n"),
        format!("a\n-1\n{root}\n"),
        "a\n1\nAAAA\n".to_owned(),
        format!("\n1\n{root}\n"),
        format!("a b\n1\n{root}\n"),
        format!("a\n1\n{root}\n\nx\n"),
        "a\n1\n".to_owned(),
    ] {
        assert_eq!(Checkpoint::parse(&wrong), Err(BadCheckpoint::Form), "{wrong:?}");
    }
    for wrong in ["", "a", "a+b", "a+00000000+AAAA", "a+00000000+AQEB"] {
        assert_eq!(NoteKey::parse(wrong), Err(BadNote::Key), "{wrong}");
    }
}

#[test]
fn a_proof_is_read_as_it_was_written() {
    let note = checkpoint().sign(&signer(1)).to_text();
    for (extra, hashes) in [(None, Vec::new()), (Some(b"{}".to_vec()), vec![leaf_hash(b"1"), leaf_hash(b"2")])] {
        let proof = LogProof { extra, index: 7, hashes, checkpoint: note.clone() };
        assert_eq!(LogProof::parse(&proof.to_text()).as_ref(), Ok(&proof));
    }
    for wrong in [
        "",
        "c2sp.org/tlog-proof@v1\nindex 1\n",
        "c2sp.org/tlog-proof@v2\nindex 1\n\nx",
        "c2sp.org/tlog-proof@v1\nindex 01\n\nx",
        "c2sp.org/tlog-proof@v1\n\nx",
        "c2sp.org/tlog-proof@v1\nindex 1\nAAAA\n\nx",
        "c2sp.org/tlog-proof@v1\nextra !\nindex 1\n\nx",
    ] {
        assert!(LogProof::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn keys_are_read_in_every_form_of_a_file() {
    // RFC 8410, section 10.3: an Ed25519 key in PKCS#8 version 1.
    let pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
    let public = "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1";
    let key = SigningKey::from_pkcs8(pem.as_bytes()).unwrap();
    assert_eq!(key.verifying().hex(), public);
    assert_eq!(public.parse::<VerifyingKey>().unwrap(), key.verifying());
    assert!(key.verifying().spki_pem().contains("MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE="));
    assert!(SigningKey::from_pkcs8(b"").is_err() && SigningKey::from_pkcs8(b"-----BEGIN PRIVATE KEY-----").is_err());
    assert!("19bf".parse::<VerifyingKey>().is_err());
    let signature = key.sign(b"message");
    assert!(key.verifying().verify(b"message", &signature) && !key.verifying().verify(b"massage", &signature));
    // {1: 1, 3: -8, -1: 6, -2: …}
    assert_eq!(key.verifying().cose_key_hex()[..18], "a401010327200621 5820".replace(' ', "")[..18]);
}

#[test]
fn a_change_of_keys_is_signed_by_both() {
    let (old, new, stranger) = (signer(1), signer(2), signer(3));
    let origin = ORIGIN.parse().unwrap();
    let (entry, _) = rotation_entry(&origin, (&old, &new), "2026-12-01T00:00:00Z");
    let read = Rotation::verified(&entry).unwrap();
    assert_eq!((read.from, read.to, read.origin.as_str()), (old.verifying(), new.verifying(), ORIGIN));
    let mut envelope: serde_json::Value = serde_json::from_str(&entry).unwrap();
    for missing in 0..2 {
        let mut bent = envelope.clone();
        bent["signatures"].as_array_mut().unwrap().remove(missing);
        assert_eq!(Rotation::verified(&bent.to_string()), Err(BadRotation::Unsigned));
    }
    let (other, _) = rotation_entry(&origin, (&old, &stranger), "2026-12-01T00:00:00Z");
    let other: serde_json::Value = serde_json::from_str(&other).unwrap();
    envelope["payload"] = other["payload"].clone();
    assert_eq!(Rotation::verified(&envelope.to_string()), Err(BadRotation::Unsigned));
    assert_eq!(Rotation::verified("{}"), Err(BadRotation::Form));
}
