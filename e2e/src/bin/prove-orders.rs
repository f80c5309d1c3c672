//! `make prove-orders`: creates Slipway, Contour's CRDs and their prerequisites in every possible order. `--only CNSEDO` plays one order
//! (in the same way for the same `--seed`).

use std::process::ExitCode;

use clap::Parser as _;
use slipway_e2e::narration::{show, title};
use slipway_e2e::orders::proof::{Options, prove};

#[tokio::main]
async fn main() -> ExitCode {
    match prove(&Options::parse()).await {
        Ok(failed) if failed.is_empty() => {
            title("every order led to the same final state");
            ExitCode::SUCCESS
        }
        Ok(failed) => {
            title(&format!("{} orders failed", failed.len()));
            for line in failed {
                show(&line);
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("\nthe proof could not be completed: {error:#}");
            ExitCode::FAILURE
        }
    }
}
