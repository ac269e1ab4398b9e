//! Holds: placeholder.
