//! The workloads during which a fault happens: the initial state, and the user's action.

use std::fmt;
use std::str::FromStr;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::lab::{Lab, Thing, contour_deployment, players, specification};

/// A user's action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Workload {
    /// Creates a ContourDeployment whose service does not exist.
    Create,
    /// Creates the missing ExtensionService; Contour's verdict on it is valid.
    Appears,
    /// Sets another response timeout of the ExtensionService, which Contour reads only when it starts.
    Facts,
    /// Deletes the ExtensionService.
    Disappears,
    /// Edits the spec in a way that rolls out Contour.
    Edit,
    /// Changes Envoy's workload to a DaemonSet.
    Switch,
    /// Deletes the ContourDeployment.
    Delete,
}

/// The initial state of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// The namespaces, and the Service of the authorization server.
    Nothing,
    /// A settled ContourDeployment whose service does not exist.
    Missing,
    /// A settled ContourDeployment whose service is enforced.
    Enforced,
}

/// All workloads.
pub const ALL: [Workload; 7] = [
    Workload::Create,
    Workload::Appears,
    Workload::Facts,
    Workload::Disappears,
    Workload::Edit,
    Workload::Switch,
    Workload::Delete,
];

/// The response timeout of the user's ExtensionService.
const RESPONSE: &str = "500ms";

impl Workload {
    /// Returns the initial state.
    pub fn base(self) -> Base {
        match self {
            Self::Create => Base::Nothing,
            Self::Appears => Base::Missing,
            Self::Facts | Self::Disappears | Self::Edit | Self::Switch | Self::Delete => Base::Enforced,
        }
    }

    /// Reports whether the ContourDeployment no longer exists at the end.
    pub fn ends_with_nothing(self) -> bool {
        self == Self::Delete
    }

    /// Performs the user's action.
    pub async fn act(self, lab: &Lab, auth: &str) -> anyhow::Result<()> {
        let edge = Thing::new("ContourDeployment", &lab.namespace, "edge");
        let service = Thing::new("ExtensionService", auth, "auth");
        match self {
            Self::Create => create(lab, auth).await,
            Self::Appears => appear(lab, auth).await,
            Self::Facts => {
                lab.patch(&service, &json!({"spec": {"timeoutPolicy": {"response": "700ms"}}}))
                    .await
            }
            Self::Disappears => lab.delete(&service).await,
            Self::Edit => lab.patch(&edge, &json!({"spec": {"runtimeSettings": edited()}})).await,
            Self::Switch => {
                lab.patch(&edge, &json!({"spec": {"envoy": {"workloadType": "DaemonSet"}}}))
                    .await
            }
            Self::Delete => lab.delete(&edge).await,
        }
    }
}

impl Base {
    /// Creates the objects of the base. The namespaces must exist.
    pub async fn create(self, lab: &Lab, auth: &str) -> anyhow::Result<()> {
        if self == Self::Nothing {
            return Ok(());
        }
        if self == Self::Enforced {
            appear(lab, auth).await?;
        }
        create(lab, auth).await
    }
}

async fn create(lab: &Lab, auth: &str) -> anyhow::Result<()> {
    let edge = contour_deployment(&lab.namespace, &specification(auth));
    lab.create(&edge).await.map(drop)
}

async fn appear(lab: &Lab, auth: &str) -> anyhow::Result<()> {
    lab.create(&players::extension_service(auth, RESPONSE)).await.map(drop)
}

/// Returns settings that Contour reads when it starts.
fn edited() -> Value {
    json!({"httpproxy": {"disablePermitInsecure": true}})
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "create",
            Self::Appears => "appears",
            Self::Facts => "facts",
            Self::Disappears => "disappears",
            Self::Edit => "edit",
            Self::Switch => "switch",
            Self::Delete => "delete",
        })
    }
}

impl FromStr for Workload {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let known = ALL.into_iter().find(|workload| workload.to_string() == text);
        known.with_context(|| format!("{text} is not a workload; the workloads are {ALL:?}"))
    }
}
