//! A few of the orders in which objects may be created. `make prove-orders` plays all of them.

use anyhow::Context as _;
use slipway_e2e::lab::Lab;
use slipway_e2e::lab::world::{Takes, alone};
use slipway_e2e::narration::say;
use slipway_e2e::orders::plan;
use slipway_e2e::orders::played::OrderServer;

/// The seed that selects the orders. `prove-orders --seed 1 --only ORDER` replays a failed order.
const SEED: u64 = 1;

/// The number of orders. In one of them, each piece is deleted and created again.
const ORDERS: usize = 3;

#[tokio::test]
async fn a_few_creation_orders_end_in_the_same_state() {
    alone("orders", Takes::ContourCrds, async |lab: &Lab| {
        say(format!("{ORDERS} orders, seed {SEED}"));
        let server = OrderServer::emptied(lab).await?;
        let reference = server.reference().await.context("the best order")?;
        for case in plan::sample(SEED, ORDERS) {
            say(format!(
                "{} {:?}, then {:?} deleted and created again",
                case.order, case.pace, case.away
            ));
            server
                .play(&case, &reference)
                .await
                .with_context(|| format!("{case:?}"))?;
        }
        Ok(())
    })
    .await;
}
