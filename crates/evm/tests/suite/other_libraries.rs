//! Holds: addresses against viem's, and QR codes against jsqr.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use batchin_evm::{BASE, ETHEREUM, Xpub, XpubError, payment_uri, qr_svg};
use serde_json::Value;

const PHRASE: &str = "legal winner thank year wave sausage worth useful legal winner thank yellow";

/// What a script prints that runs on npm's packages.
fn told(script: &str, variables: &[(&str, &str)], input: &str) -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    #[expect(clippy::disallowed_methods, reason = "scripts/test.sh says where what it installed lies")]
    let modules = PathBuf::from(std::env::var("BATCHIN_TEST_NODE_MODULES").expect("scripts/test.sh prepares it"));
    let mut process = Command::new("node")
        .arg(root.join("tests/sdk").join(script))
        .env("SDK_NODE_MODULES", modules)
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    process.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = process.wait_with_output().unwrap();
    assert!(output.status.success(), "{script}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_thousand_addresses_are_those_of_the_wallet() {
    let theirs = told("addresses_node.mjs", &[("SDK_PHRASE", PHRASE), ("SDK_COUNT", "1000")], "");
    let xpub = Xpub::parse(theirs["xpub"].as_str().unwrap()).unwrap();
    let addresses = theirs["addresses"].as_array().unwrap();
    assert_eq!(addresses.len(), 1000);
    for (index, address) in (0..).zip(addresses) {
        assert_eq!(xpub.address(index).unwrap().to_string(), address.as_str().unwrap(), "{index}");
    }
    let xprv = theirs["xprv"].as_str().unwrap();
    assert_eq!(Xpub::parse(xprv), Err(XpubError::Private));
    assert_eq!(Xpub::parse(PHRASE), Err(XpubError::Private));
    let master = theirs["master"].as_str().unwrap();
    assert_eq!(Xpub::parse(master), Err(XpubError::NotAnAccount { depth: 0, is_hardened: false }));
    assert!(!format!("{xpub:?}").contains("xpub6"), "{xpub:?}");
}

#[test]
fn another_reader_reads_the_codes() {
    let to = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed".parse().unwrap();
    let uri = payment_uri(BASE.id, &BASE.usdc, &to, Some(12_340_000));
    assert_eq!(
        uri,
        "ethereum:0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913@8453/transfer?address=0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed&uint256=12340000"
    );
    let texts = [uri, payment_uri(1, &ETHEREUM.usdc, &to, None), to.to_string(), "x".repeat(512)];
    let pictures: Vec<_> = texts.iter().map(|text| qr_svg(text).unwrap()).collect();
    assert!(pictures[0].len() < 20_000, "{}", pictures[0].len());
    let read = told("qr_node.mjs", &[], &serde_json::to_string(&pictures).unwrap());
    assert_eq!(read, serde_json::json!(texts));
    for text in [String::new(), "x".repeat(513)] {
        assert!(qr_svg(&text).is_err());
    }
}
