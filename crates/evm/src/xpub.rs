//! Holds: an extended public key and the addresses that follow from it. Never a private key.

use std::fmt;

use bip32::{ChildNumber, ExtendedKey, Prefix, XPub};

use crate::address::Address;

/// How deep an account's key lies: `m/44'/60'/0'`.
const ACCOUNT_DEPTH: u8 = 3;
/// The branch of addresses that are handed out (BIP-44).
const RECEIVING: u32 = 0;
/// Words of which recovery phrases are made, at least.
const PHRASE_WORDS: usize = 12;
/// Digits of a plain private key.
const PRIVATE_KEY_DIGITS: usize = 64;

/// An account's extended public key, `m/44'/60'/0'`. Whoever has it sees all of the account's addresses and can spend
/// from none. It is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Xpub {
    /// `m/44'/60'/0'/0`.
    receiving: XPub,
}

/// A text is not the key that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum XpubError {
    /// It can spend.
    #[error(
        "this is a private key or a recovery phrase: a server must never hold one. Remove it from this machine, treat it \
         as stolen, and configure the account's extended public key (xpub…) of m/44'/60'/0' instead"
    )]
    Private,
    /// It is of another kind of wallet or network.
    #[error("an extended public key of Ethereum begins with xpub; this one is for another kind of wallet or network")]
    OtherKind,
    /// It is no extended key, or a digit is wrong.
    #[error("this is no extended public key: it must begin with xpub, and its checksum must be right")]
    Form,
    /// It is not an account's.
    #[error(
        "this extended public key lies at depth {depth} (of a key that is{} hardened); an account's is wanted, m/44'/60'/0', \
         which lies at depth 3", if *.is_hardened { "" } else { " not" }
    )]
    NotAnAccount {
        /// How many derivations lie between it and the wallet's master key.
        depth: u8,
        /// Whether the last of them was hardened.
        is_hardened: bool,
    },
    /// BIP-32 gives no key here, which has a probability below 2^-127.
    #[error("no address follows from this key at this index")]
    NoKey,
}

impl Xpub {
    /// Reads `xpub…`, with or without space around it.
    pub fn parse(text: &str) -> Result<Self, XpubError> {
        let text = text.trim();
        if looks_private(text) {
            return Err(XpubError::Private);
        }
        let key: ExtendedKey = text.parse().map_err(|_| XpubError::Form)?;
        // The version's bytes and not the text alone; a private key starts with a zero where a public one has its sign.
        if key.prefix.is_private() || key.key_bytes[0] == 0 {
            return Err(XpubError::Private);
        }
        if key.prefix != Prefix::XPUB {
            return Err(XpubError::OtherKind);
        }
        let account = XPub::try_from(key).map_err(|_| XpubError::Form)?;
        let (depth, is_hardened) = (account.attrs().depth, account.attrs().child_number.is_hardened());
        if depth != ACCOUNT_DEPTH || !is_hardened {
            return Err(XpubError::NotAnAccount { depth, is_hardened });
        }
        Ok(Self { receiving: child(&account, RECEIVING)? })
    }

    /// The address `0/index` below it. The index is below 2^31.
    pub fn address(&self, index: u32) -> Result<Address, XpubError> {
        let key = child(&self.receiving, index)?;
        let point = key.public_key().to_sec1_point(false);
        let bytes: &[u8; 64] = point.as_bytes().last_chunk().ok_or(XpubError::NoKey)?;
        Ok(Address::of_point(bytes))
    }

    /// The key's fingerprint (BIP-32), in hexadecimal: names the key in logs without giving it away.
    pub fn fingerprint(&self) -> String {
        hex::encode(self.receiving.attrs().parent_fingerprint)
    }
}

impl fmt::Debug for Xpub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Xpub").field("fingerprint", &self.fingerprint()).finish_non_exhaustive()
    }
}

fn child(key: &XPub, index: u32) -> Result<XPub, XpubError> {
    let number = ChildNumber::new(index, false).map_err(|_| XpubError::NoKey)?;
    key.derive_child(number).map_err(|_| XpubError::NoKey)
}

/// Judged before anything is read of it, whatever its checksum.
fn looks_private(text: &str) -> bool {
    let is_extended = text.get(1..4).is_some_and(|rest| rest.eq_ignore_ascii_case("prv"));
    let is_phrase = text.split_whitespace().count() >= PHRASE_WORDS;
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let is_plain = digits.len() == PRIVATE_KEY_DIGITS && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_extended || is_phrase || is_plain
}

#[cfg(test)]
mod tests;
