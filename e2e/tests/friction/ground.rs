//! The shared environment of the cases: one API server with `MutatingAdmissionPolicy`, one operator, one simulated Contour, one
//! ledger.

use std::panic::AssertUnwindSafe;

use anyhow::Context as _;
use futures::FutureExt as _;
use slipway_e2e::lab::Lab;
use slipway_e2e::lab::contour::Contour;
use slipway_e2e::lab::world::{Takes, World, run_on};
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

use crate::Case;
use crate::ledger::Ledger;
use crate::policy;

/// Whether other cases may run at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Other cases may run.
    BesideOthers,
    /// No other case may run, because the case affects all ContourDeployments.
    Alone,
}

/// The shared environment of the cases.
pub struct Ground {
    runtime: Runtime,
    server: OnceCell<Result<Server, String>>,
}

struct Server {
    world: &'static World,
    _contour: Contour,
}

impl Ground {
    /// Returns an environment that lives as long as the process. The API server ends with the process.
    pub fn new() -> anyhow::Result<&'static Self> {
        Ok(Box::leak(Box::new(Self {
            runtime: Runtime::new().context("starting a runtime")?,
            server: OnceCell::const_new(),
        })))
    }

    /// Runs a case; panics if it fails.
    pub fn run(&'static self, namespace: &str, turn: Turn, case: Case) {
        self.runtime.block_on(async {
            let server = self
                .server
                .get_or_init(async || start().await.map_err(|error| format!("{error:#}")))
                .await;
            let world = match server {
                Ok(server) => server.world,
                Err(error) => panic!("the start of the API server failed: {error}"),
            };
            run_on(world, namespace, async |lab| {
                if turn == Turn::Alone {
                    lab.wait_until_no_others_are_left().await?;
                }
                run_case(lab, case).await
            })
            .await;
        });
    }
}

/// Runs a case. Deletes the case's policies, even if the case fails or panics.
async fn run_case(lab: &Lab, case: Case) -> anyhow::Result<()> {
    let outcome = AssertUnwindSafe(case(lab)).catch_unwind().await;
    let lifted = policy::lift_all(lab).await;
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    lifted
}

/// Starts the API server, the ledger, the operator and the simulated Contour.
async fn start() -> anyhow::Result<Server> {
    let name = format!("friction-{}", std::process::id());
    // The world must outlive all spawned tasks.
    let world: &'static World = Box::leak(Box::new(World::start_with(&name, &["--mutating-policies"]).await?));
    Ledger::begin(&world.state.join("audit.log"))?;
    world.restore(Takes::Operator).await?;
    Ok(Server {
        world,
        _contour: Contour::everywhere(&world.client().await?),
    })
}
