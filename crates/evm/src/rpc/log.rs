//! Holds: a log, and how a transfer's begins.

use crate::{address::Address, hash::Hash, header::BlockRef};

/// `keccak("Transfer(address,address,uint256)")`.
pub(crate) const TRANSFER: Hash = Hash::from_bytes([
    0xdd, 0xf2, 0x52, 0xad, 0x1b, 0xe2, 0xc8, 0x9b, 0x69, 0xc2, 0xb0, 0x68, 0xfc, 0x37, 0x8d, 0xaa, 0x95, 0x2b, 0xa7,
    0xf1, 0x63, 0xc4, 0xa1, 0x16, 0x28, 0xf5, 0x5a, 0x4d, 0xf5, 0x23, 0xb3, 0xef,
]);

/// What a contract wrote down in a transaction, in a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The contract.
    pub token: Address,
    /// What it can be found by: for a transfer, `Transfer`, the payer and who is paid.
    pub topics: Vec<Hash>,
    /// The rest: for a transfer, the value.
    pub data: Vec<u8>,
    /// The block.
    pub block: BlockRef,
    /// The transaction.
    pub transaction: Hash,
    /// Its place among the block's logs.
    pub index: u64,
}
