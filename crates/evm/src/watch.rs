//! Holds: what is watched on a chain: which tokens, and which addresses are ours.

use std::{collections::HashSet, sync::Arc};

use crate::{address::Address, chain::Chain, state::AGAIN};

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
    /// Blocks that must be there, with its own, before one is read again, for each time that it is.
    pub(crate) again: [u32; AGAIN],
    usdc: Address,
    pub(crate) tokens: Vec<Address>,
    pub(crate) addresses: Arc<HashSet<Address>>,
}

impl Watch {
    /// Looks for the chain's tokens that go to these addresses.
    pub fn new(chain: &Chain, addresses: impl Into<Arc<HashSet<Address>>>) -> Self {
        let unsupported = chain.unsupported.iter().copied().filter(|token| *token != chain.usdc);
        let tokens = std::iter::once(chain.usdc).chain(unsupported).collect();
        let (window, usdc) = (chain.window(), chain.usdc);
        // Before anything is credited by its confirmations alone, and once more as late as it is remembered.
        let again = [chain.required_confirmations, window];
        Self { chain_id: chain.id, window, again, usdc, tokens, addresses: addresses.into() }
    }

    pub(crate) fn kind(&self, token: &Address) -> Option<TokenKind> {
        if *token == self.usdc {
            return Some(TokenKind::Usdc);
        }
        self.tokens.contains(token).then_some(TokenKind::Unsupported)
    }
}
