//! Holds: the gates that batch work must pass on a replica.

/// Why a request may not start on a replica now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Gate {
    /// G1: an interactive or high request waits for its first byte, or may do so unseen.
    FirstByte,
    /// G2: too many prompt tokens of batch work wait for their first byte. A shorter prompt may pass.
    Prompt,
    /// G3: the class has as much in flight as the replica was found to bear.
    Limit,
    /// G4: the slots are taken, or all but the reserve; for interactive requests, the cap is reached.
    Slots,
    /// G5: the replica is unknown, unhealthy, or asked for a pause.
    Unavailable,
}
