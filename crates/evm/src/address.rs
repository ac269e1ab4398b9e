//! Holds: an address of an EVM chain, with the checksum of EIP-55.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha3::{Digest as _, Keccak256};

/// Twenty bytes that tokens are sent to. Written with the checksum of EIP-55.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address([u8; 20]);

/// A text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It has another form.
    #[error("an address is 0x and 40 hexadecimal digits")]
    Form,
    /// Its letters are in both cases, and not as EIP-55 says: most likely a digit is wrong.
    #[error(
        "the address's checksum (EIP-55, the case of its letters) is wrong: a digit was mistyped, or its case was changed"
    )]
    Checksum,
}

impl Address {
    /// An address by its bytes.
    pub const fn from_bytes(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }

    /// Of the uncompressed public key's 64 bytes, without the first one that says so.
    pub(crate) fn of_point(point: &[u8; 64]) -> Self {
        let digest: [u8; 32] = Keccak256::digest(point).into();
        let mut bytes = [0; 20];
        bytes.copy_from_slice(&digest[12..]);
        Self(bytes)
    }

    /// As a topic of a log: the address behind twelve zeros.
    pub(crate) fn to_topic(self) -> [u8; 32] {
        let mut word = [0; 32];
        word[12..].copy_from_slice(&self.0);
        word
    }

    /// The address of a topic; none where what should be zeros is not.
    pub(crate) fn of_topic(word: &[u8; 32]) -> Option<Self> {
        let (zeros, rest) = word.split_at(12);
        if zeros.iter().any(|byte| *byte != 0) {
            return None;
        }
        Some(Self(rest.try_into().ok()?))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = hex::encode(self.0).into_bytes();
        let digest: [u8; 32] = Keccak256::digest(&text).into();
        for (index, digit) in text.iter_mut().enumerate() {
            let nibble = if index % 2 == 0 { digest[index / 2] >> 4 } else { digest[index / 2] & 0x0f };
            if nibble >= 8 {
                digit.make_ascii_uppercase();
            }
        }
        f.write_str("0x")?;
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let digits = text.strip_prefix("0x").ok_or(AddressError::Form)?;
        let mut bytes = [0; 20];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| AddressError::Form)?;
        let address = Self(bytes);
        let has_case = |test: fn(&char) -> bool| digits.chars().any(|digit| test(&digit));
        let is_mixed = has_case(char::is_ascii_uppercase) && has_case(char::is_ascii_lowercase);
        if is_mixed && address.to_string() != text {
            return Err(AddressError::Checksum);
        }
        Ok(address)
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From EIP-55 itself.
    const EXAMPLES: [&str; 4] = [
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
        "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
        "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
    ];

    #[test]
    fn addresses_are_read_with_and_without_a_checksum() {
        for text in EXAMPLES {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
            assert_eq!(text.to_lowercase().parse(), Ok(address));
            assert_eq!(format!("0x{}", text[2..].to_uppercase()).parse(), Ok(address));
            assert_eq!(Address::of_topic(&address.to_topic()), Some(address));
            let wrong = text.replacen('B', "b", 1);
            assert_eq!(wrong.parse::<Address>(), Err(AddressError::Checksum), "{wrong}");
        }
        for text in
            ["", "0x", "5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAe", "0xg"]
        {
            assert_eq!(text.parse::<Address>(), Err(AddressError::Form), "{text}");
        }
    }
}
