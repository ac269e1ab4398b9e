use super::*;

/// Of the phrase that all of Ethereum's test tools share: "test test test … junk", m/44'/60'/0'.
const ACCOUNT: &str =
    "xpub6Ce9NcJvTk36xtLSrJLZqE7wtgA5deCeYs7rSQtreh4cj6ByPtrg9sD7V2FNFLPnf8heNP3FGkeV9qwfzvZNSd54JoNXVsXFYSYwHsnJxqP";
/// One step further.
const RECEIVING_KEY: &str =
    "xpub6DyUKdwoLWmUJ4Tn9Bbsdtx7B5Ws18mEN19e5HT52ikE53FiUheSQXrZUNPovqfyKmw4579A1Mm3GXXKM39N64uooBfJ4tNAzFsEbodRTx4";

#[test]
fn an_account_has_the_addresses_that_its_wallet_shows() {
    let xpub = Xpub::parse(&format!(" {ACCOUNT}\n")).unwrap();
    assert_eq!(xpub.address(0).unwrap().to_string(), "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266");
    assert_eq!(xpub.address(1 << 31), Err(XpubError::NoKey));
}

#[test]
fn other_keys_are_refused_with_the_reason() {
    assert_eq!(Xpub::parse(RECEIVING_KEY), Err(XpubError::NotAnAccount { depth: 4, is_hardened: false }));
    assert_eq!(Xpub::parse(&ACCOUNT.replace("qP", "qQ")), Err(XpubError::Form));
    assert_eq!(Xpub::parse(""), Err(XpubError::Form));
    // However damaged: who sends it has to know.
    for private in [
        "xprv9yeny6n2dNUokQFykGoZU6BDLeKbEBUoBeCFe2VF6MXdrHr",
        "tprv8ZgxMBicQKsPd",
        "test test test test test test test test test test test junk",
        "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
    ] {
        assert_eq!(Xpub::parse(private), Err(XpubError::Private), "{private}");
    }
    assert!(XpubError::Private.to_string().contains("a server must never hold one"));
}
