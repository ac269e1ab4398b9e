//! Holds: money in: what Stripe reports becomes movements of the ledger.
//!
//! A report is never believed. It says what is to be read anew, and what is read as a whole is written as a whole
//! (`batchin_store::Topups::settle_topup`): so reports may be doubled, late, in any order or lost, and a process may die
//! anywhere in between.

mod auto;
mod billing;
mod catch_up;
mod chains;
mod charge;
mod checkout;
mod crediting;
mod health;
mod intake;
mod options;
mod probe;
mod reading;
mod reconcile;
mod reports;
mod restart;
mod second;
mod start;
mod usdc;
mod watcher;
mod worker;
mod x402;

pub use billing::{Billing, BillingError, BillingParts};
pub use chains::UsdcError;
pub use checkout::{CheckoutError, OpenedCheckout};
pub use health::{ChainHealth, ChainLook};
pub use options::{ChainOptions, StripeOptions, UsdcOptions, X402Options};
pub use probe::{ProbedEndpoint, StripeProbeError, probe_chains, probe_stripe, probe_x402};
pub use reports::ReportError;
pub use restart::{RestartError, RestartOrder, Restarted, restart_chain};
pub use usdc::{AddressError, DepositName, DepositPlace, DepositStanding, ShownDeposit};
pub use watcher::{LookError, Looked, Watcher};
pub use worker::Pace;
pub use x402::{X402Ask, X402Error, X402Payment};
