//! A few of the orders in which things may come; `make prove-orders` plays all of them.

use anyhow::Context as _;
use slipway_e2e::lab::Lab;
use slipway_e2e::lab::world::{Takes, alone};
use slipway_e2e::narration::say;
use slipway_e2e::orders::plan;
use slipway_e2e::orders::played::Server;

/// Chooses the orders. What failed with it can be replayed: `prove-orders --seed 1 --only ORDER`.
const SEED: u64 = 1;

/// How many orders; in one of them each piece goes and comes again.
const ORDERS: usize = 3;

#[tokio::test]
async fn a_few_orders_in_which_everything_may_come_end_in_the_same_also_after_each_piece_was_away() {
    alone("orders", Takes::ContourCrds, async |lab: &Lab| {
        say(format!("{ORDERS} orders, seed {SEED}"));
        let server = Server::emptied(lab).await?;
        let wanted = server.reference().await.context("the best order")?;
        for case in plan::sample(SEED, ORDERS) {
            say(format!("{} {:?}, then {:?} again", case.order, case.pace, case.away));
            server.play(&case, &wanted).await.with_context(|| format!("{case:?}"))?;
        }
        Ok(())
    })
    .await;
}
