//! Holds: the token's code and how its functions are called.

/// Code of `dollar.sol`, compiled by `dollar.sh`.
const CODE: &str = include_str!("dollar.hex");

/// Digits of a word.
const WORD: usize = 64;

pub(super) fn code() -> String {
    format!("0x{}", CODE.trim())
}

pub(super) fn mint(to: &str, value: u128) -> String {
    format!("0x40c10f19{}{value:064x}", address(to))
}

pub(super) fn transfer(to: &str, value: u128) -> String {
    format!("0xa9059cbb{}{value:064x}", address(to))
}

pub(super) fn transfer_piece(to: &str, piece: u128) -> String {
    format!("0x6a4c0017{}{piece:064x}", address(to))
}

pub(super) fn transfer_many(payments: &[(String, u128)]) -> String {
    let (count, bytes) = (payments.len(), WORD / 2);
    let (first, second) = (2 * bytes, (3 + count) * bytes);
    let recipients: String = payments.iter().map(|(to, _)| address(to)).collect();
    let values: String = payments.iter().map(|(_, value)| format!("{value:064x}")).collect();
    format!("0xb7fc6612{first:064x}{second:064x}{count:064x}{recipients}{count:064x}{values}")
}

fn address(text: &str) -> String {
    format!("{:0>WORD$}", text.trim_start_matches("0x").to_lowercase())
}
