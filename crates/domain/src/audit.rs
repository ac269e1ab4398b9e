//! Holds: what an entry of the audit log is.

use crate::stored;

stored! {
    /// What an entry of the audit log is.
    pub enum AuditKind {
        /// A record of texts or of a request: the log has its hash alone.
        Receipt = 0,
        /// Another key signs from here on: the log has what both keys say.
        Rotation = 1,
        /// A month of an account: the log has its hash alone.
        Statement = 2,
    }
}
