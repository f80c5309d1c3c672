//! A model check of the core: the real `plan`, executed as the controller executes the plan, in a model where every actor takes
//! every permitted step in every order. `cargo test` searches a small part of the model. The whole search is `make prove-model`,
//! or
//!
//!     cargo test --release --test model -- prove [--only NAME]
//!
//! and `… -- replay FILE` replays the path in a file that `prove` has written.

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
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// The subcommands of the model check.
#[derive(Parser)]
#[command(name = "model")]
enum Command {
    /// Searches every scope to its end, and finds a counterexample for every removed guard.
    Prove(prove::Options),
    /// Replays a path from a file.
    Replay {
        /// The file with the path.
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    // Without one of these subcommands the binary runs as an ordinary test.
    let word = std::env::args().nth(1).unwrap_or_default();
    if !["prove", "replay"].contains(&word.as_str()) {
        return sample::run();
    }
    match Command::parse() {
        Command::Prove(options) => prove::prove(&options),
        Command::Replay { file } => prove::replay(&file),
    }
}
