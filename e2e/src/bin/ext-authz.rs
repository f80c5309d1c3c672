//! `ext-authz [ADDRESS]`: the external authorization server of the samples and tests, on `[::]:9001` by default. The server runs until
//! SIGTERM or SIGINT. [`slipway_e2e::authorizer`] defines the allowed requests. The environment variable `MARK` sets the value of the
//! header that allowed requests carry.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use slipway_e2e::authorizer;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// The time limit for requests in progress at the shutdown, since a client may never close its connection.
const DRAIN: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let argument = std::env::args().nth(1).unwrap_or_else(|| "[::]:9001".to_owned());
    let address: SocketAddr = argument
        .parse()
        .with_context(|| format!("{argument:?} is not an address with a port"))?;
    let mark = std::env::var("MARK").unwrap_or_else(|_| authorizer::CHECKER.to_owned());
    let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;
    println!(
        "external authorization on {address}, allows {:?}",
        authorizer::CREDENTIALS
    );
    let (stop, asked) = oneshot::channel::<()>();
    let end = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        println!("shutting down");
        // Dropping the sender is the signal.
        drop(stop);
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        outcome = authorizer::serve(address, mark, async { drop(asked.await) }) => outcome,
        () = end => Ok(()),
    }
}
