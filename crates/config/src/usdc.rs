//! Holds: `[usdc]` and `[[usdc.chains]]`: payments in USDC.

use std::{borrow::Cow, collections::HashSet, time::Duration};

use batchin_billing::{ChainOptions, UsdcOptions};
use batchin_domain::Amount;
use batchin_evm::{Address, Chain, Finality, KNOWN, Tag, Xpub, x402::TokenDomain};
use batchin_settings::{FaultKind, Kind, Preset, Scope, Setting, settings};
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use crate::x402;

/// USDC's smallest units in a cent.
const UNITS_PER_CENT: u128 = 10_000;

settings! {
    pub(super) const SETTINGS: &[&Setting];

    const XPUB: Setting = Setting {
        path: "usdc.xpub",
        kind: Kind::Secret,
        preset: Preset::Absent { example: "\"xpub6C…\"" },
        doc: "The extended public key of m/44'/60'/0' of a wallet of yours, of which each account gets an address. It can see \
              payments and spend none; never give a private key or a recovery phrase. Left out: nobody pays in USDC.",
    };
    const MIN_CENTS: Setting = Setting {
        path: "usdc.min_cents",
        kind: Kind::Integer { min: 0, max: 100_000_000 },
        preset: Preset::Integer(100),
        doc: "Payments below this wait for more of the same account and are credited together, in US cents.",
    };
    const AGREE_FROM_CENTS: Setting = Setting {
        path: "usdc.agree_from_cents",
        kind: Kind::Integer { min: 0, max: 900_000_000_000 },
        preset: Preset::Integer(100_000),
        doc: "From here on, in US cents, a payment is credited only if a second endpoint of its chain says the same of it.",
    };
}

settings! {
    pub(super) const CHAIN_SETTINGS: &[&Setting];

    const CHAIN: Setting = Setting {
        path: "chain",
        kind: Kind::Text,
        preset: Preset::Required { example: "\"base\"" },
        doc: "Its name in the API. ethereum, polygon, base and arbitrum are known; of any other EVM chain say chain_id, \
              usdc_contract and required_confirmations.",
    };
    const RPC_URLS: Setting = Setting {
        path: "rpc_urls",
        kind: Kind::TextList,
        preset: Preset::Required { example: "[\"https://base.example/KEY\", \"https://other.example/KEY\"]" },
        doc: "Endpoints that answer JSON-RPC over HTTP: the first is asked, the next where that fails, and a second one about \
              large payments. They are never shown or logged.",
    };
    const REQUIRED_CONFIRMATIONS: Setting = Setting {
        path: "required_confirmations",
        kind: Kind::Integer { min: 1, max: 100_000 },
        preset: Preset::Absent { example: "12" },
        doc: "Blocks, with its own, before a payment is credited. Left out: ethereum 12, polygon 50, base 12, arbitrum 300.",
    };
    const CHAIN_ID: Setting = Setting {
        path: "chain_id",
        kind: Kind::Integer { min: 1, max: 9_007_199_254_740_991 },
        preset: Preset::Absent { example: "8453" },
        doc: "Its number. Known for those chains.",
    };
    const USDC_CONTRACT: Setting = Setting {
        path: "usdc_contract",
        kind: Kind::Text,
        preset: Preset::Absent { example: "\"0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913\"" },
        doc: "The contract of the native USDC there, which alone is credited. Known for those chains.",
    };
    const UNSUPPORTED_TOKENS: Setting = Setting {
        path: "unsupported_tokens",
        kind: Kind::TextList,
        preset: Preset::List(&[]),
        doc: "Contracts of tokens that look like it, such as bridged ones: shown to who sent them, never credited. Added to \
              those that are known.",
    };
    const FINALITY: Setting = Setting {
        path: "finality",
        kind: Kind::OneOf(&["confirmations", "safe", "finalized"]),
        preset: Preset::Absent { example: "\"safe\"" },
        doc: "What the chain itself must say of a payment's block besides. Left out: ethereum finalized from $1,000 on, polygon \
              finalized, base and arbitrum safe, others nothing.",
    };
    const FINALITY_FROM_CENTS: Setting = Setting {
        path: "finality_from_cents",
        kind: Kind::Integer { min: 0, max: 900_000_000_000 },
        preset: Preset::Integer(0),
        doc: "From which amount on, in US cents; counts where finality is set.",
    };
    const TOKEN_NAME: Setting = Setting {
        path: "token_name",
        kind: Kind::Text,
        preset: Preset::Absent { example: "\"USD Coin\"" },
        doc: "What the contract's name() says, by which payments over x402 are signed. Known for those chains; any other is offered \
              over x402 where this is set.",
    };
    const TOKEN_VERSION: Setting = Setting {
        path: "token_version",
        kind: Kind::Text,
        preset: Preset::Text("2"),
        doc: "And what its version() says.",
    };
    const POLL_SECONDS: Setting = Setting {
        path: "poll_seconds",
        kind: Kind::Integer { min: 1, max: 600 },
        preset: Preset::Integer(3),
        doc: "Between two looks.",
    };
    const RPC_BATCH: Setting = Setting {
        path: "rpc_batch",
        kind: Kind::Integer { min: 1, max: 1_000 },
        preset: Preset::Integer(20),
        doc: "Calls that go in one request; 1 for endpoints that take no batches.",
    };
}

/// `None`: nobody pays in USDC.
pub(super) fn read(root: &Scope<'_>) -> Option<UsdcOptions> {
    // Everything is read before anything is missed, so that every fault comes at once.
    let chains: Vec<ChainOptions> = read_chains(root);
    let (min, agree_from) = (cents(root, &MIN_CENTS), cents(root, &AGREE_FROM_CENTS));
    let x402 = x402::read(root, min, chains.iter().any(|chain| chain.domain.is_some()));
    let Some(xpub) = root.secret(&XPUB) else {
        if let Some(chain) = root.entries("usdc.chains").first().filter(|_| !root.is_set(&XPUB)) {
            chain.fault(&CHAIN, FaultKind::Value, "there is no usdc.xpub that addresses could be made of");
        }
        return None;
    };
    let xpub = match Xpub::parse(xpub.expose_secret()) {
        Ok(xpub) => xpub,
        Err(cause) => {
            root.fault(&XPUB, FaultKind::Value, cause.to_string());
            return None;
        }
    };
    Some(UsdcOptions { xpub, min, agree_from, chains, x402 })
}

fn read_chains(root: &Scope<'_>) -> Vec<ChainOptions> {
    let (mut names, mut ids) = (HashSet::new(), HashSet::new());
    let mut chains = Vec::new();
    for scope in root.entries("usdc.chains") {
        let Some(options) = read_chain(&scope) else { continue };
        if !names.insert(options.chain.name.clone()) || !ids.insert(options.chain.id) {
            scope.fault(&CHAIN, FaultKind::Reference, "this chain is there already");
        }
        chains.push(options);
    }
    chains
}

fn read_chain(scope: &Scope<'_>) -> Option<ChainOptions> {
    let name = scope.text(&CHAIN);
    if name.is_empty() {
        return None;
    }
    let known = KNOWN.into_iter().find(|chain| chain.name == name);
    let (id, contract) = (scope.optional_integer(&CHAIN_ID), address(scope, &USDC_CONTRACT));
    let confirmations = scope.optional_count(&REQUIRED_CONFIRMATIONS);
    let mut tokens: Vec<Address> = known.iter().flat_map(|chain| chain.unsupported.iter().copied()).collect();
    for (text, _) in scope.list(&UNSUPPORTED_TOKENS) {
        match text.parse() {
            Ok(token) => tokens.push(token),
            Err(cause) => scope.fault(&UNSUPPORTED_TOKENS, FaultKind::Value, format!("{text}: {cause}")),
        }
    }
    let needed = |setting: &Setting| {
        scope.fault(setting, FaultKind::Value, format!("is missing; {name} is none of the known chains"));
    };
    if known.is_none() {
        if id.is_none() {
            needed(&CHAIN_ID);
        }
        if contract.is_none() && !scope.is_set(&USDC_CONTRACT) {
            needed(&USDC_CONTRACT);
        }
        if confirmations.is_none() {
            needed(&REQUIRED_CONFIRMATIONS);
        }
    }
    let (finality, rpc_urls) = (finality(scope), endpoints(scope));
    let max_batch = usize::try_from(scope.integer(&RPC_BATCH)).unwrap_or(1);
    let (token_name, version) = (scope.optional_text(&TOKEN_NAME), scope.text(&TOKEN_VERSION));
    let every = Duration::from_secs(scope.integer(&POLL_SECONDS));
    let chain = Chain {
        id: id.or(known.as_ref().map(|chain| chain.id))?,
        usdc: contract.or(known.as_ref().map(|chain| chain.usdc))?,
        unsupported: Cow::Owned(tokens),
        required_confirmations: confirmations.or(known.as_ref().map(|chain| chain.required_confirmations))?,
        finality: finality.or(known.as_ref().map(|chain| chain.finality)).unwrap_or(Finality::Confirmations),
        name: Cow::Owned(name),
    };
    let domain = match token_name {
        Some(name) => Some(TokenDomain { name: name.into(), version: version.into() }),
        None => TokenDomain::of_known(chain.id),
    };
    Some(ChainOptions { chain, rpc_urls, max_batch, every, domain })
}

fn finality(scope: &Scope<'_>) -> Option<Finality> {
    let tag = match scope.optional_text(&FINALITY)?.as_str() {
        "safe" => Tag::Safe,
        "finalized" => Tag::Finalized,
        _ => return Some(Finality::Confirmations),
    };
    Some(Finality::Tagged { tag, from: u128::from(scope.integer(&FINALITY_FROM_CENTS)) * UNITS_PER_CENT })
}

/// What is wrong with one is told without it: it may have a key in it.
fn endpoints(scope: &Scope<'_>) -> Vec<SecretString> {
    let listed = scope.list(&RPC_URLS);
    if listed.is_empty() && scope.is_set(&RPC_URLS) {
        scope.fault(&RPC_URLS, FaultKind::Value, "must name at least one endpoint");
    }
    let is_url =
        |text: &str| Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some());
    for (place, (text, _)) in listed.iter().enumerate() {
        if !is_url(text) {
            let message = format!("endpoint {} must be http://HOST… or https://HOST…", place + 1);
            scope.fault(&RPC_URLS, FaultKind::Value, message);
        }
    }
    listed.into_iter().filter(|(text, _)| is_url(text)).map(|(text, _)| text.into()).collect()
}

fn address(scope: &Scope<'_>, setting: &Setting) -> Option<Address> {
    match scope.optional_text(setting)?.parse() {
        Ok(address) => Some(address),
        Err(cause) => {
            let cause: batchin_evm::AddressError = cause;
            scope.fault(setting, FaultKind::Value, cause.to_string());
            None
        }
    }
}

fn cents(scope: &Scope<'_>, setting: &Setting) -> Amount {
    let nanos = i64::try_from(scope.integer(setting)).unwrap_or(i64::MAX);
    Amount::from_nanos(nanos.saturating_mul(batchin_domain::money::NANOS_PER_CENT)).unwrap_or(Amount::MAX)
}
