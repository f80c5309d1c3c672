//! `make prove-flap`: an ExtensionService flaps under traffic, on a real cluster.

use clap::Parser as _;
use slipway_e2e::flap::proof::{Options, prove};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    prove(&Options::parse()).await
}
