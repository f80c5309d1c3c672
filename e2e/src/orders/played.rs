//! One order on a real API server, with kubelet and Contour played: whatever the order, the end is the same, also after each
//! piece was away for a while.

use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::lab::{Lab, PATIENT, wait};
use crate::orders::inventory::{Beginning, Inventory};
use crate::orders::masks::{End, Names};
use crate::orders::order::{Order, Piece, Pieces};
use crate::orders::plan::{Case, Pace};
use crate::orders::stage::Stage;
use crate::wait::Look;

/// What is the same after so long is taken for steady; nobody who is played takes a tenth of it.
const STEADY: Duration = Duration::from_secs(1);

/// An API server for orders, and how it ends if everything comes in the best order.
pub struct Server<'a> {
    stage: Stage<'a>,
    beginning: Beginning,
}

impl<'a> Server<'a> {
    /// Takes everything away that is there.
    pub async fn emptied(lab: &'a Lab) -> anyhow::Result<Self> {
        // While Contour's kinds are there to be listed.
        let inventory = Inventory::new(&lab.client).await?;
        let stage = Stage::new(lab).await?;
        for piece in [Piece::Operator, Piece::ContourCrds] {
            stage.take_away(piece).await?;
        }
        let beginning = Beginning::now(inventory).await?;
        Ok(Self { stage, beginning })
    }

    /// What the end must be: that of the best order, which is looked at more closely.
    pub async fn reference(&self) -> anyhow::Result<End> {
        self.beginning.is_now().await?;
        self.build(Order::BEST, Pace::Settling).await?;
        let status = self.stage.edge().status().await?;
        ensure!(
            status.is("Ready", "True")
                && status
                    .condition("Ready")
                    .is_some_and(|ready| ready.reason == "AsSpecified"),
            "{status}"
        );
        let end = self.end_of_all_work().await?;
        ensure!(end.len() > 30, "only this is there: {end:?}");
        self.clear().await?;
        Ok(end)
    }

    /// Builds everything in this order, then takes each piece that shall go and makes it again, and compares the end each time.
    pub async fn play(&self, case: &Case, wanted: &End) -> anyhow::Result<()> {
        let Case { order, pace, away } = case;
        self.beginning.is_now().await?;
        self.build(*order, *pace).await?;
        self.ends_as(wanted, Names::Exact).await?;
        let all = Pieces::from(Piece::ALL);
        for piece in away {
            self.comes_again(*piece, *pace)
                .await
                .with_context(|| format!("{piece} goes and comes again"))?;
            self.stage.settled(&all).await?;
            self.ends_as(wanted, Names::Succeeded)
                .await
                .with_context(|| format!("after {piece} went and came again"))?;
        }
        self.stage.no_exits()?;
        self.clear().await
    }

    /// The end, once everybody is done: Contour may judge, and Kubernetes' controllers may follow, after the operator has settled.
    async fn end_of_all_work(&self) -> anyhow::Result<End> {
        let mut before = None;
        wait("everybody is done", PATIENT)
            .every(STEADY)
            .until(async || {
                let now = self.beginning.end().await?;
                let unfinished = now.unfinished().join(", ");
                let is_steady = before.replace(now.clone()).as_ref() == Some(&now);
                Ok(if unfinished.is_empty() && is_steady {
                    Look::Reached(now)
                } else {
                    Look::NotYet(format!(
                        "unfinished: {unfinished}; the same as a moment ago: {is_steady}"
                    ))
                })
            })
            .await
    }

    async fn build(&self, order: Order, pace: Pace) -> anyhow::Result<()> {
        let mut there = Pieces::new();
        for piece in order.pieces() {
            self.stage.make(piece).await?;
            there.insert(piece);
            if pace == Pace::Settling {
                self.stage
                    .settled(&there)
                    .await
                    .with_context(|| format!("when {piece} had come"))?;
            }
        }
        self.stage.settled(&there).await
    }

    /// Takes a piece away, with what goes along, and makes it again.
    async fn comes_again(&self, piece: Piece, pace: Pace) -> anyhow::Result<()> {
        self.stage.take_away(piece).await?;
        let along: Vec<_> = piece.takes_along().collect();
        let mut there = Pieces::from(Piece::ALL);
        there.retain(|other| *other != piece && !along.contains(other));
        if pace == Pace::Settling {
            self.stage.settled(&there).await?;
            // What starts now finds what it needs, too.
            if self.stage.replace_contour(&there).await? {
                self.stage.settled(&there).await?;
            }
        }
        for piece in [piece].into_iter().chain(along) {
            self.stage.make(piece).await?;
        }
        Ok(())
    }

    /// The end is as wanted, and stays so when the operator looks again.
    async fn ends_as(&self, wanted: &End, names: Names) -> anyhow::Result<()> {
        let as_wanted = async || {
            wait("the end is the same as in the best order", PATIENT)
                .until(async || {
                    let differences = self.beginning.end().await?.differences(wanted, names);
                    Ok(Look::when(differences.is_empty(), differences.join("\n  ")))
                })
                .await
        };
        as_wanted().await?;
        self.stage.lab().looks_again(self.stage.edge(), 1).await?;
        as_wanted().await
    }

    /// Takes everything away.
    async fn clear(&self) -> anyhow::Result<()> {
        self.stage.take_away(Piece::ContourDeployment).await?;
        // Kubernetes' controllers take their time for each of the two.
        tokio::try_join!(
            self.stage.take_away(Piece::Namespace),
            self.stage.take_away(Piece::ContourCrds)
        )?;
        self.stage.take_away(Piece::Operator).await?;
        self.beginning.is_again().await
    }
}
