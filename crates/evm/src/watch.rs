//! Holds: what is watched on a chain: which tokens, and which addresses are ours.

use std::collections::HashSet;

use crate::{address::Address, chain::Chain};

/// Which kind of token came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// The native USDC: credited.
    Usdc,
    /// One that looks like it: shown, never credited.
    Unsupported,
}

/// What is looked for in a chain's blocks. Made anew for each scan, *after* its [`heads`](crate::heads) were asked for: so an address
/// that was handed out before a block was made is always known when that block is read.
#[derive(Clone, Debug)]
pub struct Watch {
    pub(crate) chain_id: u64,
    pub(crate) window: u32,
    usdc: Address,
    pub(crate) tokens: Vec<Address>,
    pub(crate) addresses: HashSet<Address>,
}

impl Watch {
    /// Looks for the chain's tokens that go to these addresses.
    pub fn new(chain: &Chain, addresses: HashSet<Address>) -> Self {
        let unsupported = chain.unsupported.iter().copied().filter(|token| *token != chain.usdc);
        let tokens = std::iter::once(chain.usdc).chain(unsupported).collect();
        Self { chain_id: chain.id, window: chain.window(), usdc: chain.usdc, tokens, addresses }
    }

    pub(crate) fn kind(&self, token: &Address) -> Option<TokenKind> {
        if *token == self.usdc {
            return Some(TokenKind::Usdc);
        }
        self.tokens.contains(token).then_some(TokenKind::Unsupported)
    }
}
