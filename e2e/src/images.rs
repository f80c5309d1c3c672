//! The images of Slipway and of the external authorization server. Each contains one static binary.

use std::path::PathBuf;

use anyhow::Context as _;

use crate::cluster::testbed;
use crate::{binaries, places};

/// The user and group of the binaries. The user is not root, so pods may set `runAsNonRoot`.
const USER: &str = "65532:65532";

/// Builds the images and returns the archives for [`Cluster::load`](crate::cluster::Cluster::load).
pub async fn build() -> anyhow::Result<Vec<PathBuf>> {
    let binaries = binaries::built().await?;
    let images = [
        ("slipway", "slipway.dev/slipway:v0.1.0", &binaries.slipway),
        ("ext-authz", "slipway.dev/ext-authz:v0.1.0", &binaries.ext_authz),
    ];
    let folder = places::target().join("images");
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let mut archives = Vec::new();
    for (name, reference, binary) in images {
        let archive = folder.join(format!("{name}.tar"));
        let content = format!("{}:/{name}", binary.display());
        let (file, entry) = (archive.to_string_lossy(), format!("/{name}"));
        testbed(&["image", "--user", USER, &file, reference, &entry, &content]).await?;
        archives.push(archive);
    }
    Ok(archives)
}
