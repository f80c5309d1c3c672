//! The images of Slipway and of the external authorization server. Each contains one static binary.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tokio::process::Command;

use crate::cluster::testbed;
use crate::{command, places};

/// The target triple of the builds. With an explicit target, build scripts and macros, which run here, are not linked statically.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// The images that a cluster needs in addition to those of the testbed: binary and reference.
const IMAGES: [(&str, &str); 2] = [
    ("slipway", "slipway.dev/slipway:v0.1.0"),
    ("ext-authz", "slipway.dev/ext-authz:v0.1.0"),
];

/// The user and group of the binaries. The user is not root, so pods may set `runAsNonRoot`.
const USER: &str = "65532:65532";

/// Builds the images and returns the archives for [`Cluster::load`](crate::cluster::Cluster::load).
pub async fn build() -> anyhow::Result<Vec<PathBuf>> {
    let binaries = build_static().await?;
    let folder = places::target().join("images");
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let mut archives = Vec::new();
    for (binary, reference) in IMAGES {
        let archive = folder.join(format!("{binary}.tar"));
        let content = format!("{}:/{binary}", binaries.join(binary).display());
        let (file, entry) = (archive.to_string_lossy(), format!("/{binary}"));
        testbed(&["image", "--user", USER, &file, reference, &entry, &content]).await?;
        archives.push(archive);
    }
    Ok(archives)
}

/// Builds both binaries with one command, so that shared crates are compiled once, and returns their folder.
async fn build_static() -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args([
        "build",
        "--release",
        "--locked",
        "--target",
        TRIPLE,
        "-p",
        "slipway",
        "-p",
        "slipway-e2e",
    ]);
    for (binary, _) in IMAGES {
        build.args(["--bin", binary]);
    }
    build
        .current_dir(places::repository())
        .env("RUSTFLAGS", "-C target-feature=+crt-static");
    // The cargo that runs this process sets this variable for this process.
    build.env_remove("CARGO_ENCODED_RUSTFLAGS");
    command::watched(&mut build).await?;
    Ok(release())
}

/// Returns the path of a static binary that [`build`] has built.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let file = release().join(name);
    anyhow::ensure!(
        file.is_file(),
        "{} does not exist: build the images first",
        file.display()
    );
    Ok(file)
}

fn release() -> PathBuf {
    places::target().join(Path::new(TRIPLE)).join("release")
}
