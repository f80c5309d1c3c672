//! `record PROOF FILE`: writes the rows of a file (a JSON array) to `docs/proof-results.md`, for proofs outside of this crate.

use anyhow::Context as _;
use slipway_e2e::proof;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [proof, file] = arguments.as_slice() else {
        anyhow::bail!("usage: record PROOF FILE")
    };
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {file}"))?;
    let rows: Vec<proof::Row> = serde_json::from_str(&text).with_context(|| format!("reading the rows in {file}"))?;
    proof::record(proof, &rows)
}
