//! `make prove-drift`: disturbs every object of Slipway's, and plays every scenario of a possible leak.

use clap::Parser as _;
use slipway_e2e::drift::proof::{Options, prove};
use slipway_e2e::lab::Lab;
use slipway_e2e::lab::world::{Takes, alone};
use slipway_e2e::narration::say;

#[tokio::main]
async fn main() {
    let options = Options::parse();
    say(format!("seed {}", options.seed));
    alone("drift", Takes::ContourCrds, async |lab: &Lab| {
        prove(lab, &options).await
    })
    .await;
}
