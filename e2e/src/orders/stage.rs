//! The six pieces on a real API server with stand-ins for kubelet and Contour: how each piece is created and deleted, and the status
//! that must be observed once all controllers have settled.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use futures::future::try_join_all;
use kube::api::{DeleteParams, ListParams};
use serde_json::{Value, json};

use crate::cluster;
use crate::edge::{COMPONENT, Component, Condition, Edge};
use crate::lab::contour::Contour;
use crate::lab::{CRD_DELETION, Lab, Thing, players, specification, wait};
use crate::orders::admission;
use crate::orders::order::{Piece, Pieces};
use crate::wait::Look;

/// The time limit for actions of Kubernetes' own controllers. If a finalizer blocks a deletion, the namespace controller retries
/// after eight seconds, and the CRD controller after five.
const PATIENT: Duration = Duration::from_mins(1);

/// The interval between observations.
const PACE: Duration = Duration::from_millis(100);

/// The namespace of the ContourDeployment, and the namespace of the authorization service, which is created and deleted.
pub struct Stage<'a> {
    lab: &'a Lab,
    auth: String,
    edge: Edge,
    contour: Contour,
    crds: Vec<Value>,
}

/// The expected state with a set of pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// No reconciles: the ContourDeployment or the operator does not exist.
    Nothing,
    /// Contour's CRDs do not exist. Slipway does not create Contour; a running Contour stays unchanged.
    CrdsMissing,
    /// Contour and Envoy run. The service has this state; its stand-in is in the service's namespace or in the ContourDeployment's.
    Running {
        /// `status.extensionServices[].state`.
        state: &'static str,
        /// `status.extensionServices[].traffic`.
        traffic: &'static str,
        /// Whether the stand-in is in the namespace of the service.
        is_beside_it: bool,
    },
}

impl Expected {
    /// Returns the expected state with these pieces.
    pub fn with(pieces: &Pieces) -> Self {
        let there = |piece| pieces.contains(&piece);
        if !there(Piece::ContourDeployment) || !there(Piece::Operator) {
            return Self::Nothing;
        }
        if !there(Piece::ContourCrds) {
            return Self::CrdsMissing;
        }
        let (state, traffic) = match (there(Piece::ExtensionService), there(Piece::Service)) {
            (false, _) => ("Missing", "Denied"),
            (true, false) => ("Invalid", "Denied"),
            (true, true) => ("Available", "Enforced"),
        };
        Self::Running {
            state,
            traffic,
            is_beside_it: there(Piece::Namespace),
        }
    }
}

impl<'a> Stage<'a> {
    /// Returns a stage in the lab's namespace and a second namespace.
    pub async fn new(lab: &'a Lab) -> anyhow::Result<Self> {
        let file = cluster::contour_crds().await?;
        let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        let crds: Vec<Value> =
            serde_saphyr::from_multiple(&text).with_context(|| format!("reading {}", file.display()))?;
        ensure!(!crds.is_empty(), "{} contains no CRDs", file.display());
        Ok(Self {
            lab,
            auth: lab.name("auth"),
            edge: Edge::new(lab.client.clone(), &lab.namespace, "edge"),
            contour: Contour::of(&lab.client, &lab.namespace),
            crds,
        })
    }

    /// Returns the lab.
    pub fn lab(&self) -> &Lab {
        self.lab
    }

    /// Returns the ContourDeployment.
    pub fn edge(&self) -> &Edge {
        &self.edge
    }

    /// Returns an error if a container of Contour exited at its start.
    pub fn check_no_exits(&self) -> anyhow::Result<()> {
        let exits = self.contour.exits();
        ensure!(exits.is_empty(), "{exits:?}");
        Ok(())
    }

    /// Creates a piece and waits until the API server serves it. Does not wait for any controller.
    pub async fn create(&self, piece: Piece) -> anyhow::Result<()> {
        let made = match piece {
            Piece::ContourCrds => self.create_crds().await,
            Piece::Namespace => {
                let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.auth}});
                self.lab.create(&namespace).await.map(drop)
            }
            Piece::ExtensionService => {
                let object = players::extension_service(&self.auth, "500ms");
                self.lab.create(&object).await.map(drop)
            }
            Piece::Service => players::auth_server(self.lab, &self.auth).await,
            Piece::ContourDeployment => self.lab.edge(&specification(&self.auth)).await.map(drop),
            Piece::Operator => self.lab.world.start_operator().await,
        };
        made.with_context(|| format!("creating {piece}"))
    }

    async fn create_crds(&self) -> anyhow::Result<()> {
        try_join_all(self.crds.iter().map(|crd| self.lab.create(crd))).await?;
        wait("Contour's CRDs are served", PATIENT)
            .every(PACE)
            .until(async || {
                let all = self.lab.api("ExtensionService", "");
                let listed = all.list(&ListParams::default()).await;
                let other = self.lab.api("ContourConfiguration", "");
                let others = other.list(&ListParams::default()).await;
                Ok(Look::when(
                    listed.is_ok() && others.is_ok(),
                    format!("{:?}, {:?}", listed.err(), others.err()),
                ))
            })
            .await
    }

    /// Deletes a piece and waits until the piece and its dependents no longer exist.
    pub async fn delete(&self, piece: Piece) -> anyhow::Result<()> {
        let gone = match piece {
            Piece::ContourCrds => {
                let crds = self.crds.iter().filter_map(|crd| crd["metadata"]["name"].as_str());
                let crds = crds.map(|name| Thing::new("CustomResourceDefinition", "", name));
                self.delete_all(crds.collect(), CRD_DELETION).await
            }
            Piece::Namespace => self.delete_namespace().await,
            Piece::ExtensionService => {
                self.delete_all(vec![Thing::new("ExtensionService", &self.auth, "auth")], PATIENT)
                    .await
            }
            Piece::Service => {
                let kinds = ["Service", "EndpointSlice"];
                let both = kinds.iter().map(|kind| Thing::new(kind, &self.auth, "auth"));
                self.delete_all(both.collect(), PATIENT).await
            }
            Piece::ContourDeployment => {
                let own = Thing::new("ContourDeployment", &self.lab.namespace, "edge");
                self.delete_all(vec![own], PATIENT).await
            }
            Piece::Operator => {
                let end = self.lab.world.stop_operator().await?;
                ensure!(end.status.success(), "the operator exited with {}", end.status);
                Ok(())
            }
        };
        gone.with_context(|| format!("deleting {piece}"))
    }

    /// Deletes the namespace and waits until it can be recreated.
    async fn delete_namespace(&self) -> anyhow::Result<()> {
        self.delete_all(vec![Thing::new("Namespace", "", &self.auth)], CRD_DELETION)
            .await?;
        admission::wait_until_deletion_is_known(&self.lab.client, &self.auth).await
    }

    async fn delete_all(&self, things: Vec<Thing>, limit: Duration) -> anyhow::Result<()> {
        for thing in &things {
            let api = self.lab.api(thing.kind, &thing.namespace);
            match api.delete(&thing.name, &DeleteParams::default()).await {
                Ok(_) => {}
                // Kubernetes' EndpointSlice controller, which follows the Service, may have been faster.
                Err(kube::Error::Api(status)) if status.is_not_found() && thing.kind == "EndpointSlice" => {}
                Err(error) => return Err(error).with_context(|| format!("deleting {thing}")),
            }
        }
        wait("the deleted objects no longer exist", limit)
            .every(PACE)
            .until(async || {
                for thing in &things {
                    if let Some(object) = self.lab.find(thing).await? {
                        let why = &object["status"]["conditions"];
                        return Ok(Look::NotYet(format!("{thing} still exists: {why}")));
                    }
                }
                Ok(Look::Reached(()))
            })
            .await
    }

    /// Deletes Contour's pods, if Contour can run with these pieces, and waits until other pods have replaced them. Returns whether Contour
    /// can run.
    pub async fn replace_contour(&self, pieces: &Pieces) -> anyhow::Result<bool> {
        if !matches!(Expected::with(pieces), Expected::Running { .. }) {
            return Ok(false);
        }
        let before = self.edge.pods(Component::Contour).await?.uids();
        ensure!(!before.is_empty(), "Contour has no pod");
        let selector = format!("{},{COMPONENT}={}", self.edge.selector(), Component::Contour.label());
        let pods = self.lab.api("Pod", &self.lab.namespace);
        let of_contour = ListParams::default().labels(&selector);
        pods.delete_collection(&DeleteParams::default(), &of_contour).await?;
        wait("other pods of Contour have replaced the deleted ones", PATIENT)
            .until(async || {
                let now = self.edge.pods(Component::Contour).await?;
                let is_replaced = now.uids().is_disjoint(&before) && !now.uids().is_empty();
                Ok(Look::when(is_replaced, now.to_string()))
            })
            .await?;
        Ok(true)
    }

    /// Waits until all controllers have settled with these pieces and the expected state is observed.
    pub async fn settled(&self, pieces: &Pieces) -> anyhow::Result<()> {
        if pieces.contains(&Piece::Operator) {
            self.lab.world.operator_is_ready().await?;
        }
        let expected = Expected::with(pieces);
        wait(&format!("the stage has settled as {expected:?}"), PATIENT)
            .every(PACE)
            .until(async || self.look(expected).await)
            .await
    }

    async fn look(&self, expected: Expected) -> anyhow::Result<Look<()>> {
        let Expected::Running {
            state,
            traffic,
            is_beside_it,
        } = expected
        else {
            return self.observe_standstill(expected).await;
        };
        let status = match self.edge.look_settled().await? {
            Look::Reached(status) => status,
            Look::NotYet(seen) => return Ok(Look::NotYet(seen)),
        };
        let Some(service) = status.extension_services.first() else {
            bail!("the status has settled without a service: {status}")
        };
        let namespace = if is_beside_it { &self.auth } else { &self.lab.namespace };
        let stand_in = service
            .stand_in
            .as_ref()
            .context("the status has settled without a stand-in")?;
        if service.state != state || service.traffic != traffic || stand_in.namespace != *namespace {
            return Ok(Look::NotYet(format!("{service:?}")));
        }
        // The stand-in must match the status: only the service itself may be asked, and only if it is enforced.
        let stand_in = Thing::new("ExtensionService", &stand_in.namespace, &stand_in.name);
        let found = self.lab.read(&stand_in).await?;
        let asks = if traffic == "Enforced" { "auth" } else { &stand_in.name };
        let services = &found["spec"]["services"];
        Ok(Look::when(
            services[0]["name"] == asks && services[1].is_null(),
            format!("the status reports {traffic}, but {stand_in} references {services}"),
        ))
    }

    async fn observe_standstill(&self, expected: Expected) -> anyhow::Result<Look<()>> {
        if expected == Expected::Nothing {
            return Ok(Look::Reached(()));
        }
        let status = self.edge.status().await?;
        let says = |ready: &Condition| ready.reason == "ContourCRDsMissing" && ready.status == "False";
        Ok(Look::when(
            status.observed_generation == Some(status.generation) && status.condition("Ready").is_some_and(says),
            status.to_string(),
        ))
    }
}
