//! The `virtuoso` command.
fn main() {}
