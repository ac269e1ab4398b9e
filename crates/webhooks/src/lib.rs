//! Holds: telling customers of what has happened, over HTTP and by mail.
//!
//! The store's outbox says what is to be told; here it is signed, sent and tried again. A customer names the URL, so
//! nothing here connects to an address that the operator has not opened and the public internet does not have. Mail goes
//! to the address of an account and to no other.

mod deliverer;
mod in_flight;
mod letter;
mod mail;
mod payload;
mod resolver;
mod secret;
mod sender;
mod sweep;
mod vault;
mod webhooks;

pub use deliverer::{Deliverer, DelivererParts, Identity};
pub use mail::{MailError, MailOptions, MailSecurity, Mailbox, Mailer};
pub use payload::{Message, body};
pub use resolver::{Lookup, SystemLookup};
pub use secret::{WebhookSecret, signature};
pub use sender::{Sender, SenderError};
pub use vault::{MIN_KEY_CHARS, MasterKey, ShortKey, Vault, VaultError};
pub use webhooks::{Rotated, SecretError, Webhooks};
