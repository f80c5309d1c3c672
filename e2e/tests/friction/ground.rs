//! What the cases share: one API server that knows `MutatingAdmissionPolicy`, one operator, one played Contour, one ledger.

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

/// Who else may run at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Other cases.
    BesideOthers,
    /// Nobody: all ContourDeployments are concerned.
    Alone,
}

/// What the cases share.
pub struct Ground {
    runtime: Runtime,
    server: OnceCell<Result<Server, String>>,
}

struct Server {
    world: &'static World,
    _contour: Contour,
}

impl Ground {
    /// It lives as long as the process, which is what the API server ends with.
    pub fn new() -> anyhow::Result<&'static Self> {
        Ok(Box::leak(Box::new(Self {
            runtime: Runtime::new().context("making a runtime")?,
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
                Err(error) => panic!("there is no API server to test on: {error}"),
            };
            run_on(world, namespace, async |lab| {
                if turn == Turn::Alone {
                    lab.nothing_is_left_of_others().await?;
                }
                carry_out(lab, case).await
            })
            .await;
        });
    }
}

/// Carries a case out, and takes its policies out of force whatever comes of it.
async fn carry_out(lab: &Lab, case: Case) -> anyhow::Result<()> {
    let outcome = AssertUnwindSafe(case(lab)).catch_unwind().await;
    let lifted = policy::lift_all(lab).await;
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    lifted
}

async fn start() -> anyhow::Result<Server> {
    let name = format!("friction-{}", std::process::id());
    // It has to outlive everything that is spawned here.
    let world: &'static World = Box::leak(Box::new(World::booted(&name, &["--mutating-policies"]).await?));
    Ledger::begin(&world.state.join("audit.log"))?;
    world.restore(Takes::Operator).await?;
    Ok(Server {
        world,
        _contour: Contour::everywhere(&world.client().await?),
    })
}
