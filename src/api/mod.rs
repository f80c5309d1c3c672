//! The API: what people write (`ContourDeployment`), what Slipway answers (its status), the words both use
//! (conditions, reasons, labels), and the few parts of Contour's own types that Slipway reads or writes.
//!
//! Nothing here decides anything; types and constants only.

pub mod contour;
mod crd;
mod role;
mod spec;
mod status;
pub mod vocabulary;

pub use crd::crd;
pub use role::Role;
pub use spec::{
    ContourDeployment, ContourDeploymentSpec, ContourLogLevel, ContourSpec, CustomTag, EnvoyLogLevel, EnvoySpec,
    ExtensionRef, ExtensionServiceReadiness, ExtensionServicesSpec, ExternalTrafficPolicy, GlobalExtAuth,
    IpFamilyPolicy, NamespacedRef, NetworkPublishing, NetworkPublishingType, NodePlacement, RateLimitService,
    ReplicaSettings, RuntimeSettings, Tracing, WorkloadType,
};
pub use status::{
    ContourDeploymentStatus, ExtensionServiceState, ExtensionServiceStatus, OverruledFields, StandInRef, Traffic,
};
