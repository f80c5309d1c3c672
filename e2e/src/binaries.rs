//! The binaries of the workspace. Cargo builds them once for all tests, proofs and images: `.cargo/config.toml` makes them static.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::{command, places};

/// The binaries that run in pods.
#[derive(Debug)]
pub struct Binaries {
    /// The operator.
    pub slipway: PathBuf,
    /// The external authorization server of the tests.
    pub ext_authz: PathBuf,
}

/// Builds the binaries with the profile of the calling program, and returns their paths. A later call returns the same paths.
pub async fn built() -> anyhow::Result<&'static Binaries> {
    static BUILT: OnceCell<Binaries> = OnceCell::const_new();
    BUILT.get_or_try_init(build).await
}

/// Returns the path of the operator: `SLIPWAY_BIN` if this variable is set, or else the built binary.
pub async fn slipway() -> anyhow::Result<&'static Path> {
    static CHOSEN: OnceCell<Option<PathBuf>> = OnceCell::const_new();
    let chosen = CHOSEN.get_or_try_init(async || {
        let Some(path) = std::env::var_os("SLIPWAY_BIN").filter(|path| !path.is_empty()) else {
            return Ok(None);
        };
        let path = PathBuf::from(path);
        ensure!(path.is_file(), "SLIPWAY_BIN: {} is not a file", path.display());
        Ok(Some(path))
    });
    match chosen.await? {
        Some(path) => Ok(path),
        None => Ok(&built().await?.slipway),
    }
}

async fn build() -> anyhow::Result<Binaries> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    // `--workspace` selects the features of all packages, as in every other build, so that cargo compiles nothing twice.
    build.args([
        "build",
        "--locked",
        "--workspace",
        "--message-format=json-render-diagnostics",
    ]);
    build.args(["--bin", "slipway", "--bin", "ext-authz"]);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    // `cargo test` describes the tested package in these variables. The build script of ring (0.17) depends on them, so cargo would compile
    // ring and its dependents again.
    for (name, _) in std::env::vars_os() {
        let is_about_a_package = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        if name.to_str().is_some_and(is_about_a_package) {
            build.env_remove(&name);
        }
    }
    let printed = command::watched(build.current_dir(places::repository()))
        .await
        .context("building the binaries")?;
    let messages: Vec<Value> = printed
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let path = |name: &str| {
        let mut targets = messages.iter().filter(|message| message["target"]["name"] == name);
        let executable = targets.find_map(|message| message["executable"].as_str());
        executable
            .map(PathBuf::from)
            .with_context(|| format!("cargo does not report the path of {name}"))
    };
    Ok(Binaries {
        slipway: path("slipway")?,
        ext_authz: path("ext-authz")?,
    })
}
