//! Holds: the entry of the executable.

fn main() {}
