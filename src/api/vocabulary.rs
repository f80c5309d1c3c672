//! The words of the API: labels, annotations, finalizers, condition types and reasons. All of it is interface; the
//! reference page is made from here.

/// Name of the field manager of everything that Slipway writes.
pub const FIELD_MANAGER: &str = "slipway";

/// Labels that every object of Slipway's carries.
pub mod labels {
    /// The name of the ContourDeployment that an object belongs to.
    pub const OWNER_NAME: &str = "contour.slipway.dev/contourdeployment";
    /// The namespace of the ContourDeployment that an object belongs to: ours are not only in its namespace.
    pub const OWNER_NAMESPACE: &str = "contour.slipway.dev/contourdeployment-namespace";
    /// Which part a pod is of: `contour` or `envoy`.
    pub const COMPONENT: &str = "app.kubernetes.io/component";
    /// On Contour's pod template: the hash of the template that Slipway made. A pod with another value is of another one.
    pub const TEMPLATE: &str = "contour.slipway.dev/template";
    /// On a stand-in: the slug of its role.
    pub const ROLE: &str = "contour.slipway.dev/role";
}

/// Annotations.
pub mod annotations {
    /// Hash of what Slipway last wrote: tells "we want something else now" from "somebody changed it".
    pub const APPLIED: &str = "contour.slipway.dev/applied";
    /// On a stand-in: what must be remembered of it (JSON; docs/design.md, "Rules of a stand-in", 7).
    pub const MEMORY: &str = "contour.slipway.dev/memory";
    /// On Contour's pod template: what a container captures at its start (JSON: configuration and stand-ins).
    pub const CAPTURED: &str = "contour.slipway.dev/captured";
    /// On a ContourConfiguration: hash of the settings that the API server accepted, a dot, hash of the spec made from them.
    pub const SETTINGS: &str = "contour.slipway.dev/settings";
}

/// On the ContourDeployment, while there is something to clean up; on stand-ins and blackholes, while they are in use.
pub const FINALIZER: &str = "contour.slipway.dev/cleanup";

/// Condition types.
pub mod conditions {
    /// True: this generation is rolled out, Contour and Envoy are available, every reference is available or tolerated.
    pub const READY: &str = "Ready";
    /// True: it works, but not as intended: a reference is missing, invalid or without ready endpoints, a rollout is stuck.
    pub const DEGRADED: &str = "Degraded";
    /// True: a change is on its way. Absent when settled.
    pub const RECONCILING: &str = "Reconciling";
    /// True: a person must act. Absent otherwise.
    pub const STALLED: &str = "Stalled";
    /// True: every referenced ExtensionService is available.
    pub const EXTENSION_SERVICES_AVAILABLE: &str = "ExtensionServicesAvailable";
    /// True: Contour's Deployment is available.
    pub const CONTOUR_AVAILABLE: &str = "ContourAvailable";
    /// True: the Envoys are available.
    pub const ENVOY_AVAILABLE: &str = "EnvoyAvailable";
    /// True: the specification makes a configuration that the API server and Contour accept.
    pub const CONFIGURATION_VALID: &str = "ConfigurationValid";
}

/// Reasons, of conditions and of events.
pub mod reasons {
    /// All is as the specification asks for.
    pub const AS_SPECIFIED: &str = "AsSpecified";
    /// Nothing is wrong.
    pub const HEALTHY: &str = "Healthy";
    /// Contour's CRDs are not installed, not served yet, or being deleted.
    pub const CONTOUR_CRDS_MISSING: &str = "ContourCRDsMissing";
    /// A referenced ExtensionService does not exist.
    pub const EXTENSION_SERVICE_MISSING: &str = "ExtensionServiceMissing";
    /// Contour has not judged a referenced ExtensionService yet.
    pub const EXTENSION_SERVICE_PENDING: &str = "ExtensionServicePending";
    /// A referenced ExtensionService is not valid.
    pub const EXTENSION_SERVICE_INVALID: &str = "ExtensionServiceInvalid";
    /// A referenced ExtensionService has no ready endpoints.
    pub const EXTENSION_SERVICE_NO_ENDPOINTS: &str = "ExtensionServiceNoEndpoints";
    /// A referenced ExtensionService is available.
    pub const EXTENSION_SERVICE_AVAILABLE: &str = "ExtensionServiceAvailable";
    /// Enough pods are available.
    pub const AVAILABLE: &str = "Available";
    /// Contour's and Envoy's certificates can't be issued or renewed.
    pub const CERTIFICATES_FAILED: &str = "CertificatesFailed";
    /// Nothing references an ExtensionService.
    pub const NOTHING_REFERENCED: &str = "NothingReferenced";
    /// Every referenced ExtensionService is available.
    pub const ALL_AVAILABLE: &str = "AllAvailable";
    /// The configuration was refused, by the API server or by what is known of Contour.
    pub const CONFIGURATION_REFUSED: &str = "ConfigurationRefused";
    /// The configuration was accepted.
    pub const CONFIGURATION_ACCEPTED: &str = "ConfigurationAccepted";
    /// The configuration was not checked yet.
    pub const CONFIGURATION_UNCHECKED: &str = "ConfigurationUnchecked";
    /// Contour or Envoy is being rolled out.
    pub const ROLLING_OUT: &str = "RollingOut";
    /// A rollout does not make progress.
    pub const ROLLOUT_STUCK: &str = "RolloutStuck";
    /// The workload does not exist yet.
    pub const NOT_CREATED: &str = "NotCreated";
    /// Too few pods are available.
    pub const UNAVAILABLE: &str = "Unavailable";
    /// An object of that name exists and is not Slipway's.
    pub const NAME_COLLISION: &str = "NameCollision";
    /// The API server forbids a write.
    pub const FORBIDDEN: &str = "Forbidden";
    /// The API server refuses an object.
    pub const REFUSED: &str = "Refused";
    /// The namespace is being deleted.
    pub const NAMESPACE_TERMINATING: &str = "NamespaceTerminating";
    /// A write failed; it is tried again.
    pub const WRITE_FAILED: &str = "WriteFailed";
    /// The stored object is not of the form that this version of Slipway reads.
    pub const UNDECODABLE: &str = "Undecodable";
    /// The ContourDeployment is being deleted.
    pub const DELETING: &str = "Deleting";
}
