//! The vocabulary of the API: labels, annotations, finalizers, condition types and reasons. All of these are part of the interface. The
//! reference page is generated from this module.

/// Defines constants with their meanings, and a list of them from which the reference page is generated.
macro_rules! words {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal;)*) => {
        $($(#[doc = $doc])* pub const $name: &str = $text;)*

        /// Every constant of this module with its meaning.
        pub const ALL: &[(&str, &str)] = &[$(($text, concat!($($doc,)*))),*];
    };
}

/// The domain of Slipway's API group, labels and annotations.
pub const DOMAIN: &str = "contour.slipway.dev";

/// The name of the field manager that Slipway uses for all writes.
pub const FIELD_MANAGER: &str = "slipway";

/// Labels of Slipway's objects.
pub mod labels {
    words! {
        /// The name of the ContourDeployment that owns the object.
        OWNER_NAME = "contour.slipway.dev/contourdeployment";
        /// The namespace of the ContourDeployment that owns the object. Some objects of a ContourDeployment are in other namespaces.
        OWNER_NAMESPACE = "contour.slipway.dev/contourdeployment-namespace";
        /// The component that a pod belongs to: `contour` or `envoy`.
        COMPONENT = "app.kubernetes.io/component";
        /// On Contour's pod template: the hash of the template. A pod with another value was created from another template.
        TEMPLATE = "contour.slipway.dev/template";
        /// `true` on every object and every pod, so that Velero excludes them from backups. A restored object would have an owner that
        /// does not exist. Slipway recreates the objects from the restored ContourDeployment.
        EXCLUDED_FROM_BACKUP = "velero.io/exclude-from-backup";
        /// On a stand-in: the short name of its role (`ext-auth`, `rate-limit` or `tracing`).
        ROLE = "contour.slipway.dev/role";
    }
}

/// Annotations of Slipway's objects.
pub mod annotations {
    words! {
        /// The hash of the content that Slipway last wrote. It distinguishes a change of the desired content from a change by another user.
        APPLIED = "contour.slipway.dev/applied";
        /// On a stand-in: its persisted state (JSON; docs/decisions/0007-persisted-state.md).
        PERSISTED_STATE = "contour.slipway.dev/persisted-state";
        /// On Contour's pod template: the inputs that a container captures at its start (JSON: the ContourConfiguration, its uid,
        /// generation and spec, and the stand-ins).
        STARTUP_INPUTS = "contour.slipway.dev/startup-inputs";
        /// On a ContourConfiguration that replaces one whose deletion is blocked: the uid of the replaced object. The name of the new
        /// object is derived from this uid.
        IN_PLACE_OF = "contour.slipway.dev/in-place-of";
        /// On a ContourConfiguration: the time at which the last rollout of Contour to it was complete. The ContourConfiguration with the
        /// latest time is the last known good one.
        ROLLED_OUT = "contour.slipway.dev/rolled-out";
    }
}

/// The finalizer of Slipway. A ContourDeployment has it while it has objects to clean up; stand-ins and blackholes have it while they are
/// in use.
pub const FINALIZER: &str = "contour.slipway.dev/cleanup";

/// Condition types.
pub mod conditions {
    words! {
        /// True: the current generation is rolled out, Contour and Envoy are available, and every referenced ExtensionService is available
        /// or tolerated.
        READY = "Ready";
        /// True: the installation works with restrictions. For example, a referenced ExtensionService is missing, invalid or without ready
        /// endpoints, or a rollout is stuck.
        DEGRADED = "Degraded";
        /// True: a change is in progress. Absent otherwise.
        RECONCILING = "Reconciling";
        /// True: a user must act. Absent otherwise.
        STALLED = "Stalled";
        /// True: every referenced ExtensionService is available.
        EXTENSION_SERVICES_AVAILABLE = "ExtensionServicesAvailable";
        /// True: Contour's Deployment is available.
        CONTOUR_AVAILABLE = "ContourAvailable";
        /// True: Envoy's workload is available.
        ENVOY_AVAILABLE = "EnvoyAvailable";
        /// True: the API server and Contour accept the configuration that results from the spec.
        CONFIGURATION_VALID = "ConfigurationValid";
        /// True: this version of Slipway supports the version of Contour that the tag of the image names. Otherwise the rules of the default
        /// version apply. Ready and Degraded do not depend on this condition.
        CONTOUR_VERSION_SUPPORTED = "ContourVersionSupported";
        /// True: Slipway's admission policies are installed as this version ships them. Ready and Degraded do not depend on this condition.
        ADMISSION_POLICIES_INSTALLED = "AdmissionPoliciesInstalled";
    }
}

/// Reasons of conditions and events.
pub mod reasons {
    words! {
        /// The state of the cluster matches the spec.
        AS_SPECIFIED = "AsSpecified";
        /// There is no problem.
        HEALTHY = "Healthy";
        /// Contour's CRDs are not installed, not served yet, or being deleted.
        CONTOUR_CRDS_MISSING = "ContourCRDsMissing";
        /// A referenced ExtensionService does not exist.
        EXTENSION_SERVICE_MISSING = "ExtensionServiceMissing";
        /// Slipway can't create the stand-in beside a referenced ExtensionService because the namespace refuses it, for example by a quota,
        /// a policy, or an existing object of the same name.
        EXTENSION_SERVICE_BLOCKED = "ExtensionServiceBlocked";
        /// Contour has no verdict on a referenced ExtensionService, or none on its current spec.
        EXTENSION_SERVICE_PENDING = "ExtensionServicePending";
        /// A referenced ExtensionService is invalid.
        EXTENSION_SERVICE_INVALID = "ExtensionServiceInvalid";
        /// A referenced ExtensionService has no ready endpoints.
        EXTENSION_SERVICE_NO_ENDPOINTS = "ExtensionServiceNoEndpoints";
        /// A referenced ExtensionService is available.
        EXTENSION_SERVICE_AVAILABLE = "ExtensionServiceAvailable";
        /// Enough pods of the workload are available.
        AVAILABLE = "Available";
        /// Slipway can't issue or renew the certificates of Contour and Envoy.
        CERTIFICATES_FAILED = "CertificatesFailed";
        /// The spec references no ExtensionService.
        NOTHING_REFERENCED = "NothingReferenced";
        /// Every referenced ExtensionService is available.
        ALL_AVAILABLE = "AllAvailable";
        /// The API server refused the configuration, or Slipway refused it because Contour or Envoy would not accept it.
        CONFIGURATION_REFUSED = "ConfigurationRefused";
        /// The API server accepted the configuration.
        CONFIGURATION_ACCEPTED = "ConfigurationAccepted";
        /// The configuration has not been checked yet.
        CONFIGURATION_UNCHECKED = "ConfigurationUnchecked";
        /// A rollout of Contour or Envoy is in progress.
        ROLLING_OUT = "RollingOut";
        /// Another user changed or deleted a ContourConfiguration that is in use. Slipway has repaired it, and a rollout of Contour to the
        /// repaired ContourConfiguration is in progress.
        CONFIGURATION_ALTERED = "ConfigurationAltered";
        /// A rollout does not make progress.
        ROLLOUT_STUCK = "RolloutStuck";
        /// The workload does not exist yet.
        NOT_CREATED = "NotCreated";
        /// Too few pods are available.
        UNAVAILABLE = "Unavailable";
        /// An object of the desired name exists and is not one of Slipway's objects.
        NAME_COLLISION = "NameCollision";
        /// The API server forbids a write.
        FORBIDDEN = "Forbidden";
        /// The API server refuses an object.
        REFUSED = "Refused";
        /// The namespace is being deleted.
        NAMESPACE_TERMINATING = "NamespaceTerminating";
        /// A mutating webhook or policy changes a field when Slipway writes it, and Slipway requires its own value of that field.
        NOT_TAKEN = "NotTaken";
        /// Another user changes an object repeatedly. Slipway repairs the object with an increasing delay.
        CONTESTED = "Contested";
        /// Each write was followed by another one, without reaching a stable state.
        UNSETTLED = "Unsettled";
        /// An obsolete object in another namespace can't be deleted.
        LEFT_BEHIND = "LeftBehind";
        /// A write failed. Slipway retries it.
        WRITE_FAILED = "WriteFailed";
        /// This version of Slipway can't decode the stored object.
        UNDECODABLE = "Undecodable";
        /// The admission policies are installed as this version of Slipway ships them.
        AS_SHIPPED = "AsShipped";
        /// One of Slipway's admission policies or bindings is absent, or differs from the one that this version ships.
        NOT_AS_SHIPPED = "NotAsShipped";
        /// This version of Slipway supports the version of Contour.
        VERSION_SUPPORTED = "VersionSupported";
        /// This version of Slipway does not support the version of Contour.
        VERSION_UNSUPPORTED = "VersionUnsupported";
        /// The reference of Contour's image does not name the version of Contour.
        VERSION_UNKNOWN = "VersionUnknown";
        /// The ContourDeployment is being deleted.
        DELETING = "Deleting";
    }
}
