//! One order on a real cluster, with the operator, Contour, Envoy and the authorization server in pods. Both hosts must answer
//! correctly at every step, and no container of Contour may exit.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use kube::Client;
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};

use crate::cluster::{self, Cluster};
use crate::edge::{COMPONENT, Component, Edge};
use crate::hosts::Hosts;
use crate::installation::{self, AuthService};
use crate::lab::CRD_DELETION;
use crate::orders::admission;
use crate::orders::inventory::{InitialState, Inventory};
use crate::orders::order::{Order, Piece, Pieces};
use crate::orders::traffic::{ExpectedAnswer, Record, Traffic};
use crate::probe::Caller;
use crate::wait::{Look, Wait};
use crate::{leftovers, places};

/// The namespace of the ContourDeployment.
const NAMESPACE: &str = "projectcontour";

/// The namespace of the sample's authorization server.
const AUTH: &str = "auth";

/// The time limit for steps that start pods.
const ROLLOUT: Duration = Duration::from_mins(2);

/// A cluster for orders.
pub struct RealCluster {
    cluster: Cluster,
    client: Client,
    authority: CertificateDer<'static>,
    edge: Edge,
    service: AuthService,
    namespace: Value,
    server: Value,
    initial: InitialState,
}

impl RealCluster {
    /// Starts a new cluster of this name, with a backend and with Slipway installed but stopped.
    pub async fn start(name: &str) -> anyhow::Result<Self> {
        let cluster = Cluster::start(name).await?;
        installation::everything(&cluster).await?;
        let authority = installation::backend(&cluster).await?;
        let own = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
        cluster.kubectl().apply(&own).await?;
        let client = cluster.client().await?;
        let (namespace, server) = auth_sample()?;
        // Contour's kinds still exist here, so that the inventory contains them.
        let inventory = Inventory::new(&client).await?;
        delete_crds(&cluster).await?;
        installation::stop_operator(&cluster).await?;
        Ok(Self {
            edge: Edge::new(client.clone(), NAMESPACE, "edge"),
            service: AuthService::new(&client)?,
            initial: InitialState::record(inventory).await?,
            cluster,
            client,
            authority,
            namespace,
            server,
        })
    }

    /// Returns the cluster.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Creates all pieces in this order. After each step both hosts must give the expected answer, and only that answer until the next
    /// step.
    pub async fn play(&self, order: Order) -> anyhow::Result<Record> {
        self.initial.check().await?;
        let mut traffic = None;
        let mut there = Pieces::new();
        for piece in order.pieces() {
            there.insert(piece);
            if let (Some(traffic), Some(right)) = (&traffic, right(&there)) {
                Traffic::also_expect(traffic, right);
            }
            self.create(piece).await.with_context(|| format!("creating {piece}"))?;
            let step = self.wait_for_expected_answers(&there, &mut traffic).await;
            if let Some(traffic) = &traffic {
                let wrong = traffic.seen().wrong;
                ensure!(wrong.is_empty(), "during the creation of {piece}: {wrong:?}");
            }
            step.with_context(|| format!("after the creation of {piece}"))?;
        }
        let traffic = traffic.context("no traffic was started")?;
        self.check_final_state().await?;
        let seen = traffic.seen();
        ensure!(seen.wrong.is_empty(), "at the end: {:?}", seen.wrong);
        ensure!(seen.requests > 0, "no request was sent");
        Ok(seen)
    }

    async fn create(&self, piece: Piece) -> anyhow::Result<()> {
        let kubectl = self.cluster.kubectl();
        match piece {
            Piece::ContourCrds => {
                installation::contour_crds(&self.cluster).await?;
                // Recreates the hosts; the rest of the backend already exists.
                kubectl.apply_file(&places::fixture("backend.yaml")).await.map(drop)
            }
            Piece::Namespace => kubectl.apply(&self.namespace).await.map(drop),
            Piece::ExtensionService => self.service.create().await.map(drop),
            Piece::Service => kubectl.apply(&self.server).await.map(drop),
            Piece::ContourDeployment => {
                let file = places::sample("contourdeployment.yaml");
                kubectl.apply_file(&file).await.map(drop)
            }
            Piece::Operator => installation::start_operator(&self.cluster).await,
        }
    }

    async fn wait_for_expected_answers(&self, there: &Pieces, traffic: &mut Option<Traffic>) -> anyhow::Result<()> {
        let Some(right) = right(there) else {
            return self.check_nothing_runs(there).await;
        };
        if traffic.is_none() {
            // The operator's own pod has to start first, too.
            Wait::for_it("Envoy has a pod")
                .within(ROLLOUT)
                .silently()
                .until(async || {
                    let pods = self.edge.pods(Component::Envoy).await?;
                    Ok(Look::when(
                        !pods.uids().is_empty(),
                        self.edge.status().await?.to_string(),
                    ))
                })
                .await?;
        }
        let hosts = Hosts::behind(&self.client, NAMESPACE, "edge-envoy", &self.authority).await?;
        let traffic = traffic.get_or_insert_with(|| Traffic::start(hosts.clone(), self.edge.clone(), right));
        Wait::for_it(format!("both hosts answer as expected: {right:?}"))
            .within(ROLLOUT)
            .every(Duration::from_millis(50))
            .silently()
            .until(async || {
                for caller in [Caller::Anonymous, Caller::Authorized] {
                    let both = hosts.get(caller).await;
                    if ![&both.http, &both.https].iter().all(|answer| right.is(caller, answer)) {
                        return Ok(Look::NotYet(format!("{caller}: {both}; {}", self.edge.status().await?)));
                    }
                }
                Ok(Look::Reached(()))
            })
            .await?;
        traffic.expect_only(right);
        Ok(())
    }

    /// Checks that no pods run while a required piece is missing. A running operator must report the missing CRDs in the status.
    async fn check_nothing_runs(&self, there: &Pieces) -> anyhow::Result<()> {
        if [Piece::Operator, Piece::ContourDeployment]
            .iter()
            .all(|piece| there.contains(piece))
        {
            Wait::for_it("the status reports that Contour's CRDs are missing")
                .silently()
                .until(async || {
                    let status = self.edge.status().await?;
                    let ready = status.condition("Ready");
                    let says_it = ready.is_some_and(|ready| ready.reason == "ContourCRDsMissing");
                    Ok(Look::when(says_it, status.to_string()))
                })
                .await?;
        }
        for component in [Component::Contour, Component::Envoy] {
            let pods = self.edge.pods(component).await?;
            ensure!(pods.uids().is_empty(), "{component:?} runs already: {pods}");
        }
        Ok(())
    }

    /// Checks that the ContourDeployment is ready and that no container of Contour or Envoy has ever restarted.
    async fn check_final_state(&self) -> anyhow::Result<()> {
        Wait::for_it("the ContourDeployment is ready")
            .within(ROLLOUT)
            .silently()
            .until(async || {
                Ok(match self.edge.look_settled().await? {
                    Look::Reached(status) => Look::when(
                        status.is("Ready", "True") && status.is("Degraded", "False"),
                        status.to_string(),
                    ),
                    Look::NotYet(seen) => Look::NotYet(seen),
                })
            })
            .await?;
        for component in [Component::Contour, Component::Envoy] {
            let pods = self.edge.pods(component).await?;
            ensure!(pods.restarts == 0 && pods.all_ready(), "{component:?}: {pods}");
        }
        Ok(())
    }

    /// Deletes all pieces, so that the next order starts from the initial state.
    pub async fn clear(&self) -> anyhow::Result<()> {
        let kubectl = self.cluster.kubectl();
        self.edge.delete().await?;
        Wait::for_it("no object of the ContourDeployment is left")
            .silently()
            .until(async || {
                let left = leftovers::of(&self.client, &self.edge).await?;
                Ok(Look::when(left.is_empty(), format!("left: {left:?}")))
            })
            .await?;
        // Terminating Envoy pods may drain for minutes.
        let draining = format!("{COMPONENT}={}", Component::Envoy.label());
        let now = ["--force", "--grace-period=0", "--ignore-not-found"];
        kubectl
            .run(&[&["-n", NAMESPACE, "delete", "pods", "-l", &draining][..], &now].concat())
            .await?;
        // The deletion of the namespace may have to wait for the deletion of the CRDs.
        let timeout = format!("--timeout={}s", CRD_DELETION.as_secs());
        let namespace = ["delete", "namespace", AUTH, "--ignore-not-found", &timeout];
        tokio::try_join!(
            async {
                kubectl.run(&namespace).await?;
                admission::wait_until_deletion_is_known(&self.client, AUTH).await
            },
            delete_crds(&self.cluster),
            installation::stop_operator(&self.cluster),
        )?;
        self.initial.wait_until_restored().await
    }
}

/// Returns the expected answer of both hosts with these pieces; None while nothing can serve.
fn right(there: &Pieces) -> Option<ExpectedAnswer> {
    let serving = [Piece::ContourCrds, Piece::ContourDeployment, Piece::Operator];
    if !serving.iter().all(|piece| there.contains(piece)) {
        return None;
    }
    Some(if there.len() == Piece::ALL.len() {
        ExpectedAnswer::Enforced
    } else {
        ExpectedAnswer::Denied
    })
}

/// Returns the sample's namespace, and a list of its server's objects with the Service.
fn auth_sample() -> anyhow::Result<(Value, Value)> {
    let file = places::sample("auth.yaml");
    let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let objects: Vec<Value> =
        serde_saphyr::from_multiple(&text).with_context(|| format!("reading {}", file.display()))?;
    let (mut namespaces, rest): (Vec<_>, Vec<_>) =
        objects.into_iter().partition(|object| object["kind"] == "Namespace");
    ensure!(
        namespaces.len() == 1 && rest.iter().any(|object| object["kind"] == "Service"),
        "{} does not contain the expected objects",
        file.display()
    );
    let rest = json!({"apiVersion": "v1", "kind": "List", "items": rest});
    Ok((namespaces.remove(0), rest))
}

async fn delete_crds(cluster: &Cluster) -> anyhow::Result<()> {
    let file = cluster::contour_crds().await?;
    let file = file.to_string_lossy();
    let timeout = format!("--timeout={}s", CRD_DELETION.as_secs());
    let delete = ["delete", "--ignore-not-found", &timeout, "-f", &file];
    cluster.kubectl().run(&delete).await.map(drop)
}
