//! Holds: the ways on a chain in which the server of a test takes payments.

use crate::{money, server::ServerBuilder};

impl ServerBuilder {
    /// Takes payments in USDC on a chain with these endpoints.
    pub fn with_usdc(mut self, urls: Vec<String>) -> Self {
        self.usdc = Some(money::chain(urls));
        self
    }

    /// Takes payments over x402 on that chain, by the facilitator at this address.
    pub fn with_x402(mut self, facilitator: &str) -> Self {
        self.usdc.as_mut().expect("a chain first").x402 = Some(money::x402(facilitator));
        self
    }
}
