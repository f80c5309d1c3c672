//! The API: the spec and the status of `ContourDeployment`, the vocabulary (conditions, reasons, labels), and the parts of Contour's own
//! types that Slipway reads or writes.
//!
//! This module contains only types and constants; it makes no decisions.

pub mod contour;
mod crd;
mod role;
mod spec;
mod status;
pub mod vocabulary;

pub use crd::crd;
pub use role::Role;
pub use spec::{
    ContourDeployment, ContourDeploymentSpec, ContourLogFormat, ContourLogLevel, ContourSpec, CustomTag,
    DaemonSetSettings, DeploymentSettings, EnvoyLogLevel, EnvoySpec, ExtensionRef, ExtensionServiceReadiness,
    ExtensionServicesSpec, ExternalTrafficPolicy, GlobalExtAuth, IpFamilyPolicy, KubernetesClient, LeaderElection,
    NamespacedRef, NetworkPublishing, NetworkPublishingType, NodePlacement, RateLimitService, RuntimeSettings,
    Shutdown, Tracing, WorkloadType,
};
pub use status::{
    ContourDeploymentStatus, ExtensionServiceState, ExtensionServiceStatus, OverruledFields, StandInRef, Traffic,
};
