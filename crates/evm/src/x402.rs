//! Holds: x402, version 2, by its scheme `exact` with EIP-3009: what is asked for, what is signed, and who carries it out.
//!
//! A signature moves tokens from the signer to the address that it names, once, and whoever carries it out can change nothing of
//! it. So nothing here needs a key, and nothing here is believed: what came is seen on the chain.

mod facilitator;
mod offer;
mod payment;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;

pub use facilitator::{Facilitator, FacilitatorError, FacilitatorOptions, Settlement, Verdict};
pub use offer::{Offer, Requirement, Resource, TokenDomain};
pub use payment::{Payment, PaymentFault, PaymentForm};

/// The version that is spoken.
pub const VERSION: u64 = 2;
/// The one scheme: exactly so much, now.
const SCHEME: &str = "exact";

/// The name of a chain in x402 (CAIP-2).
pub fn network(chain_id: u64) -> String {
    format!("eip155:{chain_id}")
}

/// JSON as x402 puts it into a header.
pub fn to_header(told: &impl Serialize) -> String {
    // What is written here has texts for keys.
    STANDARD.encode(serde_json::to_vec(told).unwrap_or_default())
}
