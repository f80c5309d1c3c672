//! One order on a real API server, with stand-ins for kubelet and Contour. Every order must lead to the same final state, also after
//! each piece was absent for a while.

use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::lab::{Lab, PATIENT, wait};
use crate::orders::inventory::{InitialState, Inventory};
use crate::orders::masks::{FinalState, Names};
use crate::orders::order::{Order, Piece, Pieces};
use crate::orders::plan::{OrderCase, Pace};
use crate::orders::stage::Stage;
use crate::wait::Look;

/// The time without changes after which a state counts as steady. Each stand-in reacts within a tenth of this time.
const STEADY: Duration = Duration::from_secs(1);

/// An API server for orders, and its objects before an order.
pub struct OrderServer<'a> {
    stage: Stage<'a>,
    initial: InitialState,
}

impl<'a> OrderServer<'a> {
    /// Deletes all pieces and records the remaining objects.
    pub async fn emptied(lab: &'a Lab) -> anyhow::Result<Self> {
        // Contour's kinds still exist here, so that the inventory contains them.
        let inventory = Inventory::new(&lab.client).await?;
        let stage = Stage::new(lab).await?;
        for piece in [Piece::Operator, Piece::ContourCrds] {
            stage.delete(piece).await?;
        }
        let initial = InitialState::record(inventory).await?;
        Ok(Self { stage, initial })
    }

    /// Plays the best order, checks its status, and returns its final state as the reference.
    pub async fn reference(&self) -> anyhow::Result<FinalState> {
        self.initial.check().await?;
        self.build(Order::BEST, Pace::Settling).await?;
        let status = self.stage.edge().status().await?;
        ensure!(
            status.is("Ready", "True")
                && status
                    .condition("Ready")
                    .is_some_and(|ready| ready.reason == "AsSpecified"),
            "{status}"
        );
        let end = self.final_state().await?;
        ensure!(end.len() > 30, "the final state has too few objects: {end:?}");
        self.clear().await?;
        Ok(end)
    }

    /// Creates the pieces in this order, then deletes and recreates each piece of `away`. Compares the final state each time.
    pub async fn play(&self, case: &OrderCase, wanted: &FinalState) -> anyhow::Result<()> {
        let OrderCase { order, pace, away } = case;
        self.initial.check().await?;
        self.build(*order, *pace).await?;
        self.check_final_state(wanted, Names::Exact).await?;
        let all = Pieces::from(Piece::ALL);
        for piece in away {
            self.recreate(*piece, *pace)
                .await
                .with_context(|| format!("deleting and recreating {piece}"))?;
            self.stage.settled(&all).await?;
            self.check_final_state(wanted, Names::Succeeded)
                .await
                .with_context(|| format!("after the recreation of {piece}"))?;
        }
        self.stage.check_no_exits()?;
        self.clear().await
    }

    /// Returns the final state. After the operator has settled, waits for Contour's verdicts and for Kubernetes' controllers.
    async fn final_state(&self) -> anyhow::Result<FinalState> {
        let mut before = None;
        wait("all controllers are idle", PATIENT)
            .every(STEADY)
            .until(async || {
                let now = self.initial.end().await?;
                let unfinished = now.unfinished().join(", ");
                let is_steady = before.replace(now.clone()).as_ref() == Some(&now);
                Ok(if unfinished.is_empty() && is_steady {
                    Look::Reached(now)
                } else {
                    Look::NotYet(format!(
                        "unfinished: {unfinished}; unchanged since the last observation: {is_steady}"
                    ))
                })
            })
            .await
    }

    async fn build(&self, order: Order, pace: Pace) -> anyhow::Result<()> {
        let mut there = Pieces::new();
        for piece in order.pieces() {
            self.stage.create(piece).await?;
            there.insert(piece);
            if pace == Pace::Settling {
                self.stage
                    .settled(&there)
                    .await
                    .with_context(|| format!("after the creation of {piece}"))?;
            }
        }
        self.stage.settled(&there).await
    }

    /// Deletes a piece and its dependents, and recreates them.
    async fn recreate(&self, piece: Piece, pace: Pace) -> anyhow::Result<()> {
        self.stage.delete(piece).await?;
        let along: Vec<_> = piece.dependents().collect();
        let mut there = Pieces::from(Piece::ALL);
        there.retain(|other| *other != piece && !along.contains(other));
        if pace == Pace::Settling {
            self.stage.settled(&there).await?;
            // A Contour that starts now must also find everything that it needs.
            if self.stage.replace_contour(&there).await? {
                self.stage.settled(&there).await?;
            }
        }
        for piece in [piece].into_iter().chain(along) {
            self.stage.create(piece).await?;
        }
        Ok(())
    }

    /// Checks that the final state equals `wanted`, and still does after the operator has reconciled again.
    async fn check_final_state(&self, wanted: &FinalState, names: Names) -> anyhow::Result<()> {
        let as_wanted = async || {
            wait("the final state is the same as in the best order", PATIENT)
                .until(async || {
                    let differences = self.initial.end().await?.differences(wanted, names);
                    Ok(Look::when(differences.is_empty(), differences.join("\n  ")))
                })
                .await
        };
        as_wanted().await?;
        self.stage.lab().reconcile_again(self.stage.edge(), 1).await?;
        as_wanted().await
    }

    /// Deletes all pieces.
    async fn clear(&self) -> anyhow::Result<()> {
        self.stage.delete(Piece::ContourDeployment).await?;
        // Kubernetes' controllers take several seconds for each of the two.
        tokio::try_join!(
            self.stage.delete(Piece::Namespace),
            self.stage.delete(Piece::ContourCrds)
        )?;
        self.stage.delete(Piece::Operator).await?;
        self.initial.wait_until_restored().await
    }
}
