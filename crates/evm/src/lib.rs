//! Holds: payments in tokens on EVM chains: an xpub's addresses, five RPC methods, a pure follower from blocks to events, x402.
//!
//! It can see what was paid and never spend it: nothing here takes a private key. It keeps nothing either: whoever calls
//! [`scan`](fn@scan) stores the events and the new state in one transaction, and calls again. Endpoints are named by a label, never
//! by their URL, which can carry a key.

mod address;
mod chain;
mod confirm;
mod follower;
mod hash;
mod header;
mod http;
mod id;
mod payment;
mod rpc;
mod scan;
mod state;
mod transfer;
mod watch;
pub mod x402;
mod xpub;

pub use address::{Address, AddressError};
pub use chain::{ARBITRUM, BASE, Chain, ETHEREUM, Finality, KNOWN, POLYGON, Reached, Standing, Tag};
pub use confirm::{Confirmation, confirm};
pub use follower::{DeepReorg, Event, Follower, Unlinked};
pub use hash::{Hash, HashError};
pub use header::{BlockRef, Header, Heads};
pub use id::{TransferId, TransferIdError};
pub use payment::{QrError, payment_uri, qr_svg};
pub use rpc::{Endpoint, EndpointError, Lie, Log, Rpc, RpcError};
pub use scan::{Scan, ScanError, begin, heads, scan};
pub use state::{State, StateError};
pub use transfer::{Seen, Skipped};
pub use watch::{TokenKind, Watch};
pub use xpub::{Xpub, XpubError};
