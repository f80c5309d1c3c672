//! Paths in the checkout.

use std::path::{Path, PathBuf};

/// Returns the root of the checkout.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate is in a folder of the checkout")
}

/// Returns the path of a file in this crate's `fixtures` folder.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// Returns the path of one of the product's samples.
pub fn sample(name: &str) -> PathBuf {
    repository().join("config/samples").join(name)
}

/// Returns the path of the command that installs, starts and stops clusters.
pub fn testbed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testbed/testbed")
}

/// Returns Cargo's target folder.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from)
}
