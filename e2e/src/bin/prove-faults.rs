//! `make prove-faults`: executes every plan of the fault proxy.

use std::process::ExitCode;

use clap::Parser as _;
use slipway_e2e::faults::proof::{Options, PROOF, prove};
use slipway_e2e::narration::say;

#[tokio::main]
async fn main() -> ExitCode {
    match prove(&Options::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(format!("{PROOF}: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
