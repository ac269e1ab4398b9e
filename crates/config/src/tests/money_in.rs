//! Holds: what is said of payments by card and in USDC, and of the mail that tells of money.

use batchin_domain::Amount;
use secrecy::ExposeSecret as _;

use super::{faults, load, shown};

/// Of the phrase that all of Ethereum's test tools share: "test test test … junk", m/44'/60'/0'.
const XPUB: &str =
    "xpub6Ce9NcJvTk36xtLSrJLZqE7wtgA5deCeYs7rSQtreh4cj6ByPtrg9sD7V2FNFLPnf8heNP3FGkeV9qwfzvZNSd54JoNXVsXFYSYwHsnJxqP";

#[test]
fn payments_by_card_need_a_key_and_a_secret() {
    let text = "[stripe]\nsecret_key = \"rk_live_quiet\"\nwebhook_secret = \"whsec_quiet\"\nold_webhook_secret = \"whsec_old\"\n";
    let config = load(text).unwrap();
    let stripe = config.stripe.as_ref().unwrap();
    assert_eq!((stripe.min_cents, stripe.max_cents, &*stripe.product), (100, 1_000_000, "Prepaid credit"));
    assert_eq!(stripe.success_url, config.server.public_url.to_string());
    let secrets: Vec<&str> = stripe.webhook_secrets.iter().map(|secret| secret.expose_secret()).collect();
    assert_eq!(secrets, ["whsec_quiet", "whsec_old"]);
    assert!(!shown(&config).contains("quiet") && !shown(&config).contains("whsec_old"), "no secret is printed");
    assert!(load("").unwrap().stripe.is_none());
    let bad = "[stripe]\nsecret_key = \"sk_test_quiet\"\nmin_cents = 10\nmax_cents = 70000000000\nsuccess_url = \"ftp://x\"\n\
               api_base = \"stripe\"\nwebhok_secret = \"whsec_quiet\"\n";
    insta::assert_snapshot!(faults(bad), @r"
    batchin.toml:3:13: stripe.min_cents 10 is out of range: 50 to 99999999
    batchin.toml:4:13: stripe.max_cents 70000000000 is out of range: 50 to 99999999
    batchin.toml:5:15: stripe.success_url must begin with http:// or https://
    batchin.toml:6:12: stripe.api_base is no URL: relative URL without a base
    batchin.toml:7:1: unknown key stripe.webhok_secret; did you mean webhook_secret?
    batchin.toml: stripe.webhook_secret is missing; without it anybody could say that they have paid
    ");
    insta::assert_snapshot!(faults("[stripe]\nwebhook_secret = \"whsec_quiet\"\nmin_cents = 500\nmax_cents = 400\n"), @r"
    batchin.toml:3:13: stripe.min_cents is more than stripe.max_cents
    batchin.toml: stripe.secret_key is missing; stripe.webhook_secret is set, so payments by card are wanted
    ");
    insta::assert_snapshot!(faults("[stripe]\nsecret_key = \"\"\nwebhook_secret = \"whsec_quiet\"\n"), @"batchin.toml:2:14: stripe.secret_key must not be empty");
}

#[test]
fn chains_that_are_known_need_no_more_than_endpoints() {
    let text = format!(
        "[usdc]\nxpub = \"{XPUB}\"\nmin_cents = 500\n[[usdc.chains]]\nchain = \"base\"\nrpc_urls = [\"https://one.example/quiet\"]\n\
         [[usdc.chains]]\nchain = \"local\"\nrpc_urls = [\"http://127.0.0.1:8545\"]\nchain_id = 31337\nrequired_confirmations = 3\n\
         usdc_contract = \"0x5FbDB2315678afecb367f032d93F642f64180aa3\"\nfinality = \"safe\"\npoll_seconds = 1\n"
    );
    let config = load(&text).unwrap();
    let usdc = config.usdc.as_ref().unwrap();
    let of = |place: usize| {
        let chain = &usdc.chains[place].chain;
        (&*chain.name, chain.id, chain.required_confirmations, chain.usdc.to_string())
    };
    assert_eq!(of(0), ("base", 8_453, 12, "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913".to_owned()));
    assert_eq!(of(1), ("local", 31_337, 3, "0x5FbDB2315678afecb367f032d93F642f64180aa3".to_owned()));
    assert_eq!(usdc.min, Amount::from_cents(500));
    let shown = shown(&config);
    assert!(!shown.contains("quiet") && !shown.contains(XPUB), "neither endpoints nor the key are printed: {shown}");
    assert!(load("").unwrap().usdc.is_none());
}

#[test]
fn what_is_wrong_with_chains_is_told_without_a_key() {
    let text = format!(
        "[usdc]\nxpub = \"{XPUB}\"\nmin_cents = -1\n\
         [[usdc.chains]]\nchain = \"bse\"\nrpc_urls = [\"wss://one.example/quiet\", \"https://two.example/quiet\"]\n\
         [[usdc.chains]]\nchain = \"base\"\nrpc_urls = []\nusdc_contract = \"0x833589fcd6edb6e08f4c7c32d4f71b54bda0291\"\n\
         [[usdc.chains]]\nchain = \"polygon\"\nfinality = \"soon\"\nunsupported_tokens = [\"0x12\"]\n\
         [[usdc.chains]]\nchain = \"ethereum\"\nrpc_url = \"https://one.example/quiet\"\nrpc_urls = [\"https://one.example/quiet\"]\n\
         [[usdc.chains]]\nchain = \"ethereum\"\nrpc_urls = [\"https://one.example/quiet\"]\nrequired_confirmations = 0\n"
    );
    insta::assert_snapshot!(faults(&text), @r#"
    batchin.toml:3:13: usdc.min_cents -1 is out of range: 0 to 100000000
    batchin.toml:4:1: usdc.chains[0].chain_id is missing; bse is none of the known chains
    batchin.toml:4:1: usdc.chains[0].required_confirmations is missing; bse is none of the known chains
    batchin.toml:4:1: usdc.chains[0].usdc_contract is missing; bse is none of the known chains
    batchin.toml:6:12: usdc.chains[0].rpc_urls endpoint 1 must be http://HOST… or https://HOST…
    batchin.toml:9:12: usdc.chains[1].rpc_urls must name at least one endpoint
    batchin.toml:10:17: usdc.chains[1].usdc_contract an address is 0x and 40 hexadecimal digits
    batchin.toml:11:1: usdc.chains[2].rpc_urls is missing; for example ["https://base.example/KEY", "https://other.example/KEY"]
    batchin.toml:13:12: usdc.chains[2].finality "soon" is none of confirmations, safe, finalized
    batchin.toml:14:22: usdc.chains[2].unsupported_tokens 0x12: an address is 0x and 40 hexadecimal digits
    batchin.toml:17:1: unknown key rpc_url; did you mean rpc_urls?
    batchin.toml:20:9: usdc.chains[4].chain this chain is there already
    batchin.toml:22:26: usdc.chains[4].required_confirmations 0 is out of range: 1 to 100000
    "#);
    let chain = "[[usdc.chains]]\nchain = \"base\"\nrpc_urls = [\"https://one.example/quiet\"]\n";
    insta::assert_snapshot!(faults(chain), @"batchin.toml:2:9: usdc.chains[0].chain there is no usdc.xpub that addresses could be made of");
    insta::assert_snapshot!(faults("[usdc]\nchains = \"base\"\n"), @"batchin.toml:2:10: usdc.chains is a list: write [[usdc.chains]] with two brackets");
}

#[test]
fn a_key_that_could_spend_is_refused() {
    let of = |key: &str| faults(&format!("[usdc]\nxpub = \"{key}\"\nagree_from_cents = \"x\"\n"));
    let phrase = "test test test test test test test test test test test junk";
    let private = of(
        "xprv9s21ZrQH143K3GJpoapnV8SFfukcVBSfeCficPSGfubmSFDxo1kuHnLisriDvSnRRuL2Qrg5ggqHKNVpxR86QEC8w35uxmGoggxtQTPvfUu",
    );
    insta::assert_snapshot!(private, @r"
    batchin.toml:2:8: usdc.xpub this is a private key or a recovery phrase: a server must never hold one. Remove it from this machine, treat it as stolen, and configure the account's extended public key (xpub…) of m/44'/60'/0' instead
    batchin.toml:3:20: usdc.agree_from_cents must be a whole number, not a text
    ");
    for key in [phrase, "0x4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"] {
        assert_eq!(of(key), private, "whatever it is, it is not repeated");
    }
    insta::assert_snapshot!(of("xpub6quiet"), @r"
    batchin.toml:2:8: usdc.xpub this is no extended public key: it must begin with xpub, and its checksum must be right
    batchin.toml:3:20: usdc.agree_from_cents must be a whole number, not a text
    ");
}

#[test]
fn mail_needs_a_server_and_somebody_it_is_from() {
    let text = "[server]\npublic_url = \"https://batch.example/\"\n[smtp]\nhost = \"smtp.example\"\nusername = \"u\"\npassword = \"quiet\"\n\
                from = \"BatchIn <noreply@batch.example>\"\n";
    let config = load(text).unwrap();
    let smtp = config.smtp.as_ref().unwrap();
    assert_eq!((&*smtp.host, smtp.port, &*smtp.service), ("smtp.example", 587, "https://batch.example"));
    assert_eq!(smtp.from.email.to_string(), "noreply@batch.example");
    assert!(!shown(&config).contains("quiet"), "no secret is printed");
    assert!(config.warnings().iter().all(|warning| !warning.contains("smtp")));
    assert_eq!(load(&format!("{text}tls = \"tls\"\n")).unwrap().smtp.unwrap().port, 465);
    let open = load(&format!("{text}tls = \"none\"\nport = 2525\n")).unwrap();
    assert_eq!(open.smtp.as_ref().unwrap().port, 2_525);
    assert!(open.warnings().iter().any(|warning| warning.contains("smtp.password goes to smtp.host without TLS")));
    assert!(load("").unwrap().smtp.is_none());
    insta::assert_snapshot!(faults("[smtp]\nhost = \"smtp.example:25\"\nusername = \"u\"\ntls = \"maybe\"\nreply_to = \"nobody\"\n"), @r#"
    batchin.toml:2:8: smtp.host must be a host name or an address such as smtp.example.com, without a port
    batchin.toml:4:7: smtp.tls "maybe" is none of starttls, tls, none
    batchin.toml:5:12: smtp.reply_to must be an e-mail address such as noreply@example.com or "BatchIn <noreply@example.com>"
    batchin.toml: smtp.from is missing; smtp.host is set, and every mail is from somebody
    batchin.toml: smtp.password is missing; smtp.username is set
    "#);
    insta::assert_snapshot!(faults("[smtp]\nfrom = \"noreply@batch.example\"\npassword = \"quiet\"\n"), @r"
    batchin.toml: smtp.host is missing; smtp.password is set, so mail is wanted
    batchin.toml: smtp.username is missing; smtp.password is set
    ");
}

#[test]
fn a_facilitator_needs_a_chain_that_it_could_pay_on() {
    let text = |chain: &str, more: &str| {
        format!(
            "[usdc]\nxpub = \"{XPUB}\"\n[usdc.x402]\nfacilitator = \"https://facilitator.example/x402\"\n{more}\
             [[usdc.chains]]\n{chain}rpc_urls = [\"https://one.example/quiet\"]\n"
        )
    };
    let base = "chain = \"base\"\n";
    let local = "chain = \"local\"\nchain_id = 31337\nrequired_confirmations = 3\n\
                 usdc_contract = \"0x5FbDB2315678afecb367f032d93F642f64180aa3\"\n";
    let config = load(&text(base, "api_key = \"quiet\"\namount_cents = 500\n")).unwrap();
    let usdc = config.usdc.as_ref().unwrap();
    let x402 = usdc.x402.as_ref().unwrap();
    assert_eq!((&*x402.facilitator.url, x402.amount), ("https://facilitator.example/x402", Amount::from_cents(500)));
    let domain = usdc.chains[0].domain.as_ref().unwrap();
    assert_eq!((&*domain.name, &*domain.version), ("USD Coin", "2"));
    assert!(!shown(&config).contains("quiet"), "no secret is printed");
    let named = load(&text(&format!("{local}token_name = \"USDC\"\n"), "")).unwrap().usdc.unwrap();
    assert_eq!(&*named.chains[0].domain.as_ref().unwrap().name, "USDC");
    assert_eq!(named.x402.unwrap().amount, Amount::from_cents(100));
    assert!(load(&format!("[usdc]\nxpub = \"{XPUB}\"\n")).unwrap().usdc.unwrap().x402.is_none());
    insta::assert_snapshot!(faults(&text(local, "amount_cents = 50\napi_ky = \"quiet\"\n")), @r"
    batchin.toml:4:15: usdc.x402.facilitator there is no chain on which it could carry anything out: none that is known, and none with token_name
    batchin.toml:5:16: usdc.x402.amount_cents is below usdc.min_cents, so that what is paid would wait for more
    batchin.toml:6:1: unknown key usdc.x402.api_ky; did you mean api_key?
    ");
    let nowhere = "[usdc.x402]\nfacilitator = \"https://one.example\"\n";
    insta::assert_snapshot!(faults(nowhere), @"batchin.toml:2:15: usdc.x402.facilitator there is no chain on which it could carry anything out: none that is known, and none with token_name");
}
