//! Holds: transfers to watched addresses, read from logs.

use std::collections::HashMap;

use crate::{
    address::Address,
    hash::Hash,
    header::BlockRef,
    id::TransferId,
    rpc::{Log, TRANSFER},
    watch::{TokenKind, Watch},
};

/// A transfer to a watched address, in a block that may still go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its key: the same after its transaction was included again in another block.
    pub id: TransferId,
    /// Whether it is credited at all.
    pub kind: TokenKind,
    /// Who paid.
    pub from: Address,
    /// Base units of the token; above zero.
    pub value: u128,
    /// The block that it stands in now.
    pub block: BlockRef,
    /// Its place among the block's logs, for people who look it up. No key: another block gives it another place.
    pub log_index: u64,
}

/// Logs of watched tokens to watched addresses that are no payments, by what they were. They are counted and nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Nothing was moved: how some trick people into copying a wrong address.
    pub of_nothing: u64,
    /// Not what an ERC-20 token logs: other topics, or data that is not one number.
    pub of_other_form: u64,
    /// More than 2^128 - 1 base units, which no dollar token has.
    pub beyond_measure: u64,
}

impl Skipped {
    pub(crate) fn add(&mut self, other: Self) {
        self.of_nothing += other.of_nothing;
        self.of_other_form += other.of_other_form;
        self.beyond_measure += other.beyond_measure;
    }
}

enum Reading {
    Transfer { from: Address, to: Address, value: u128 },
    Nothing,
    OtherForm,
    Beyond,
    Foreign,
}

/// The transfers among these logs, which are in their block's order.
pub(crate) fn transfers(watch: &Watch, logs: &[Log]) -> (Vec<Seen>, Skipped) {
    let (mut seen, mut skipped) = (Vec::new(), Skipped::default());
    let mut counts: HashMap<(Hash, Address, Address), u32> = HashMap::new();
    for log in logs {
        let Some(kind) = watch.kind(&log.token) else { continue };
        match read(watch, log) {
            Reading::Foreign => {}
            Reading::Nothing => skipped.of_nothing += 1,
            Reading::OtherForm => skipped.of_other_form += 1,
            Reading::Beyond => skipped.beyond_measure += 1,
            Reading::Transfer { from, to, value } => {
                let count = counts.entry((log.transaction, log.token, to)).or_default();
                let id = TransferId {
                    chain_id: watch.chain_id,
                    transaction: log.transaction,
                    token: log.token,
                    to,
                    nth: *count,
                };
                *count += 1;
                seen.push(Seen { id, kind, from, value, block: log.block, log_index: log.index });
            }
        }
    }
    (seen, skipped)
}

fn read(watch: &Watch, log: &Log) -> Reading {
    if log.topics.first() != Some(&TRANSFER) {
        return Reading::Foreign;
    }
    let to = log.topics.get(2).and_then(|topic| Address::of_topic(topic.as_bytes()));
    // Whoever it may be for: not one of ours.
    let Some(to) = to.filter(|to| watch.addresses.contains(to)) else { return Reading::Foreign };
    let &[_, from, _] = log.topics.as_slice() else { return Reading::OtherForm };
    let Some(from) = Address::of_topic(from.as_bytes()) else { return Reading::OtherForm };
    let Some((high, low)) = halves(&log.data) else { return Reading::OtherForm };
    match (high, low) {
        (0, 0) => Reading::Nothing,
        (0, value) => Reading::Transfer { from, to, value },
        (1.., _) => Reading::Beyond,
    }
}

/// A 256-bit number as its upper and its lower half.
fn halves(data: &[u8]) -> Option<(u128, u128)> {
    let (high, low) = data.split_at_checked(16)?;
    Some((u128::from_be_bytes(high.try_into().ok()?), u128::from_be_bytes(low.try_into().ok()?)))
}
