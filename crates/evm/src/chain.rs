//! Holds: what is true of a chain: its tokens, and when a payment on it is final.

use std::borrow::Cow;

use crate::address::Address;

/// USDC's decimal places, on every chain.
const USDC_DECIMALS: u32 = 6;
/// Headers remembered at least, so that every reorg that any of the known chains has had is followed.
const MIN_WINDOW: u32 = 128;

/// A chain on which payments are watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its number, as `eth_chainId` answers.
    pub id: u64,
    /// Its name in the API.
    pub name: Cow<'static, str>,
    /// The contract of the native USDC, which alone is credited.
    pub usdc: Address,
    /// Contracts of tokens that look like it. What they bring is seen and never credited.
    pub unsupported: Cow<'static, [Address]>,
    /// Blocks, with its own, that must be there before a payment is final.
    pub required_confirmations: u32,
    /// What must be true besides.
    pub finality: Finality,
}

/// What makes a payment final besides its confirmations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finality {
    /// Nothing else.
    Confirmations,
    /// The chain itself says so of the payment's block.
    Tagged {
        /// How it says so.
        tag: Tag,
        /// Asked of payments of this many base units or more; 0 is all.
        from: u128,
    },
}

/// A chain's own word on its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// Unlikely to go.
    Safe,
    /// Never to go.
    Finalized,
}

/// How far one endpoint's chain has been read. Nothing above `read_to` counts for anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// The newest block whose payments have been read.
    pub read_to: u64,
    /// The newest of them that is `safe`; none where the chain does not say.
    pub safe: Option<u64>,
    /// The newest of them that is `finalized`; none where the chain does not say.
    pub finalized: Option<u64>,
}

impl Reached {
    fn newest(&self, tag: Tag) -> Option<u64> {
        match tag {
            Tag::Safe => self.safe,
            Tag::Finalized => self.finalized,
        }
    }
}

/// How far a payment is from being final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Blocks from its own to the last one read, both counted; 0 where its block has not been read.
    pub confirmations: u64,
    /// How many it needs.
    pub required: u32,
    /// What the chain has yet to say of its block.
    pub waits_for: Option<Tag>,
}

impl Standing {
    /// Whether it can be credited.
    pub fn is_final(&self) -> bool {
        self.confirmations >= u64::from(self.required) && self.waits_for.is_none()
    }
}

impl Chain {
    /// How far a payment of this many base units in this block is from being final.
    pub fn standing(&self, block: u64, value: u128, reached: &Reached) -> Standing {
        let confirmations = reached.read_to.saturating_add(1).saturating_sub(block);
        let waits_for = match self.finality {
            Finality::Confirmations => None,
            Finality::Tagged { tag, from } => {
                (value >= from && reached.newest(tag).is_none_or(|newest| newest < block)).then_some(tag)
            }
        };
        Standing { confirmations, required: self.required_confirmations, waits_for }
    }

    /// The newest block of which a payment can be final, whatever its value; none where there is no such block yet.
    pub fn final_to(&self, reached: &Reached) -> Option<u64> {
        let deep = reached.read_to.saturating_add(1).checked_sub(u64::from(self.required_confirmations))?;
        match self.finality {
            Finality::Tagged { tag, from: 0 } => reached.newest(tag).map(|newest| newest.min(deep)),
            Finality::Tagged { .. } | Finality::Confirmations => Some(deep),
        }
    }

    /// Headers that are remembered: a deeper reorg is an alarm.
    pub fn window(&self) -> u32 {
        self.required_confirmations.saturating_mul(2).max(MIN_WINDOW)
    }
}

/// Ethereum's main chain.
pub const ETHEREUM: Chain = Chain {
    id: 1,
    name: Cow::Borrowed("ethereum"),
    usdc: address(b"A0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48"),
    unsupported: Cow::Borrowed(&[]),
    required_confirmations: 12,
    finality: Finality::Tagged { tag: Tag::Finalized, from: 1_000 * 10u128.pow(USDC_DECIMALS) },
};

/// Polygon. Circle's own table has 50 confirmations.
pub const POLYGON: Chain = Chain {
    id: 137,
    name: Cow::Borrowed("polygon"),
    usdc: address(b"3c499c542cEF5E3811e1192ce70d8cC03d5c3359"),
    unsupported: Cow::Borrowed(&[address(b"2791Bca1f2de4661ED88A30C99A7a9449Aa84174")]),
    required_confirmations: 50,
    finality: Finality::Tagged { tag: Tag::Finalized, from: 0 },
};

/// Base.
pub const BASE: Chain = Chain {
    id: 8453,
    name: Cow::Borrowed("base"),
    usdc: address(b"833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"),
    unsupported: Cow::Borrowed(&[address(b"d9aAEc86B65D86f6A7B5B1b0c42FFA531710b6CA")]),
    required_confirmations: 12,
    finality: Finality::Tagged { tag: Tag::Safe, from: 0 },
};

/// Arbitrum One.
pub const ARBITRUM: Chain = Chain {
    id: 42161,
    name: Cow::Borrowed("arbitrum"),
    usdc: address(b"af88d065e77c8cC2239327C5EDb3A432268e5831"),
    unsupported: Cow::Borrowed(&[address(b"FF970A61A04b1cA14834A43f5dE4533eBDDB5CC8")]),
    required_confirmations: 300,
    finality: Finality::Tagged { tag: Tag::Safe, from: 0 },
};

/// The chains that are known without being described.
pub const KNOWN: [Chain; 4] = [ETHEREUM, POLYGON, BASE, ARBITRUM];

/// Forty hexadecimal digits.
const fn address(digits: &[u8; 40]) -> Address {
    let mut bytes = [0; 20];
    let mut index = 0;
    while index < bytes.len() {
        bytes[index] = nibble(digits[2 * index]) << 4 | nibble(digits[2 * index + 1]);
        index += 1;
    }
    Address::from_bytes(bytes)
}

const fn nibble(digit: u8) -> u8 {
    match digit {
        b'a'..=b'f' => digit - b'a' + 10,
        b'A'..=b'F' => digit - b'A' + 10,
        _ => digit.wrapping_sub(b'0'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_contracts_are_where_their_issuer_says() {
        let native = KNOWN.map(|chain| format!("{} {}", chain.id, chain.usdc));
        let expected = [
            "1 0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48",
            "137 0x3c499c542cEF5E3811e1192ce70d8cC03d5c3359",
            "8453 0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913",
            "42161 0xaf88d065e77c8cC2239327C5EDb3A432268e5831",
        ];
        assert_eq!(native, expected);
        let bridged: Vec<_> = KNOWN.iter().flat_map(|chain| chain.unsupported.iter()).map(Address::to_string).collect();
        let expected = [
            "0x2791Bca1f2de4661ED88A30C99A7a9449Aa84174",
            "0xd9aAEc86B65D86f6A7B5B1b0c42FFA531710b6CA",
            "0xFF970A61A04b1cA14834A43f5dE4533eBDDB5CC8",
        ];
        assert_eq!(bridged, expected);
    }

    #[test]
    fn a_payment_is_final_once_all_conditions_are_met() {
        let reached = |read_to, finalized| Reached { read_to, safe: finalized, finalized };
        let thousand = 1_000_000_000;
        for (value, reached, is_final) in [
            (thousand - 1, reached(110, None), false),
            (thousand - 1, reached(111, None), true),
            (thousand, reached(111, None), false),
            (thousand, reached(111, Some(99)), false),
            (thousand, reached(111, Some(100)), true),
            (thousand, reached(110, Some(100)), false),
            (thousand, reached(99, Some(99)), false),
        ] {
            let standing = ETHEREUM.standing(100, value, &reached);
            assert_eq!(standing.is_final(), is_final, "{value} {reached:?} {standing:?}");
            assert!(!is_final || ETHEREUM.final_to(&reached) >= Some(100), "{value} {reached:?}");
        }
        assert_eq!(ETHEREUM.standing(100, 1, &reached(99, None)).confirmations, 0);
        assert!(ETHEREUM.standing(100, 1, &reached(u64::MAX, None)).is_final());
        // A chain that lacks the tag which the rule names never says so.
        assert_eq!(BASE.standing(100, 1, &reached(1000, None)).waits_for, Some(Tag::Safe));
        let of_base = [(1000, None), (1000, Some(500)), (1000, Some(1000)), (10, Some(10))];
        let final_to = of_base.map(|(read_to, safe)| BASE.final_to(&reached(read_to, safe)));
        assert_eq!(final_to, [None, Some(500), Some(989), None]);
    }
}
