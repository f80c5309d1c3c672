//! A model check of the core: the real `plan`, carried out as the controller does it, in a world where everybody does what he may
//! do, in every order. `cargo test` searches a small part of it; the whole is `make prove-model`, or
//!
//!     cargo test --release --test model -- prove [--only NAME]
//!
//! and `… -- replay FILE` tells the way in a file of `prove`'s anew.

mod api_server;
mod breakages;
mod checks;
mod contour;
mod furniture;
mod items;
mod kubernetes;
mod model;
mod operator;
mod plans;
mod prove;
mod refused;
mod requests;
mod sample;
mod scopes;
mod search;
mod settled;
mod state;
mod tenant;
mod trace;
mod uids;
mod user;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// The model check as a whole.
#[derive(Parser)]
#[command(name = "model")]
enum Command {
    /// Searches every scope to its end, and finds every breakage.
    Prove(prove::Options),
    /// Goes a way that was written to a file.
    Replay {
        /// The file.
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    // Without one of these words it is a test like any other.
    let word = std::env::args().nth(1).unwrap_or_default();
    if !["prove", "replay"].contains(&word.as_str()) {
        return sample::run();
    }
    match Command::parse() {
        Command::Prove(options) => prove::prove(&options),
        Command::Replay { file } => prove::replay(&file),
    }
}
