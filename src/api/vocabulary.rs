//! The words of the API: labels, annotations, finalizers, condition types and reasons. All of it is interface; the
//! reference page is made from here.

/// Constants with a meaning, and a list of them, from which the reference page is made.
macro_rules! words {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal;)*) => {
        $($(#[doc = $doc])* pub const $name: &str = $text;)*

        /// Every word of this module with its meaning.
        pub const ALL: &[(&str, &str)] = &[$(($text, concat!($($doc,)*))),*];
    };
}

/// Name of the field manager of everything that Slipway writes.
pub const FIELD_MANAGER: &str = "slipway";

/// Labels that every object of Slipway's carries.
pub mod labels {
    words! {
        /// The name of the ContourDeployment that an object belongs to.
        OWNER_NAME = "contour.slipway.dev/contourdeployment";
        /// The namespace of the ContourDeployment that an object belongs to: ours are not only in its namespace.
        OWNER_NAMESPACE = "contour.slipway.dev/contourdeployment-namespace";
        /// Which part a pod is of: `contour` or `envoy`.
        COMPONENT = "app.kubernetes.io/component";
        /// On Contour's pod template: the hash of the template that Slipway made. A pod with another value is of another one.
        TEMPLATE = "contour.slipway.dev/template";
        /// `true`, on every object and every pod: Velero leaves it out of backups. Restored it would have an owner that does not
        /// exist; the ContourDeployment makes it again.
        EXCLUDED_FROM_BACKUP = "velero.io/exclude-from-backup";
        /// On a stand-in: the slug of its role.
        ROLE = "contour.slipway.dev/role";
    }
}

/// Annotations.
pub mod annotations {
    words! {
        /// Hash of what Slipway last wrote: tells "we want something else now" from "somebody changed it".
        APPLIED = "contour.slipway.dev/applied";
        /// On a stand-in: what must be remembered of it (JSON; docs/design.md, "Rules of a stand-in", 7).
        PERSISTED_STATE = "contour.slipway.dev/persisted-state";
        /// On Contour's pod template: what a container captures at its start (JSON: the ContourConfiguration, its uid, generation and
        /// spec, and the stand-ins).
        STARTUP_INPUTS = "contour.slipway.dev/startup-inputs";
        /// On a ContourConfiguration whose predecessor hangs in its deletion: the uid of that one, from which its own name is made.
        IN_PLACE_OF = "contour.slipway.dev/in-place-of";
        /// On a ContourConfiguration: when the last rollout of Contour to it was complete. The newest so marked is the last good one.
        ROLLED_OUT = "contour.slipway.dev/rolled-out";
    }
}

/// On the ContourDeployment, while there is something to clean up; on stand-ins and blackholes, while they are in use.
pub const FINALIZER: &str = "contour.slipway.dev/cleanup";

/// Condition types.
pub mod conditions {
    words! {
        /// True: this generation is rolled out, Contour and Envoy are available, every reference is available or tolerated.
        READY = "Ready";
        /// True: it works, but not as intended: a reference is missing, invalid or without ready endpoints, a rollout is stuck.
        DEGRADED = "Degraded";
        /// True: a change is on its way. Absent when settled.
        RECONCILING = "Reconciling";
        /// True: a person must act. Absent otherwise.
        STALLED = "Stalled";
        /// True: every referenced ExtensionService is available.
        EXTENSION_SERVICES_AVAILABLE = "ExtensionServicesAvailable";
        /// True: Contour's Deployment is available.
        CONTOUR_AVAILABLE = "ContourAvailable";
        /// True: the Envoys are available.
        ENVOY_AVAILABLE = "EnvoyAvailable";
        /// True: the specification makes a configuration that the API server and Contour accept.
        CONFIGURATION_VALID = "ConfigurationValid";
        /// True: the admission policies of Slipway's are in the cluster, as this version ships them. Ready and Degraded do not
        /// depend on it.
        ADMISSION_POLICIES_INSTALLED = "AdmissionPoliciesInstalled";
    }
}

/// Reasons, of conditions and of events.
pub mod reasons {
    words! {
        /// All is as the specification asks for.
        AS_SPECIFIED = "AsSpecified";
        /// Nothing is wrong.
        HEALTHY = "Healthy";
        /// Contour's CRDs are not installed, not served yet, or being deleted.
        CONTOUR_CRDS_MISSING = "ContourCRDsMissing";
        /// A referenced ExtensionService does not exist.
        EXTENSION_SERVICE_MISSING = "ExtensionServiceMissing";
        /// Slipway can't make its stand-in beside a referenced ExtensionService, because the namespace refuses it: a quota, a policy,
        /// a name that is taken.
        EXTENSION_SERVICE_BLOCKED = "ExtensionServiceBlocked";
        /// Contour has not judged a referenced ExtensionService, or its present form, yet.
        EXTENSION_SERVICE_PENDING = "ExtensionServicePending";
        /// A referenced ExtensionService is not valid.
        EXTENSION_SERVICE_INVALID = "ExtensionServiceInvalid";
        /// A referenced ExtensionService has no ready endpoints.
        EXTENSION_SERVICE_NO_ENDPOINTS = "ExtensionServiceNoEndpoints";
        /// A referenced ExtensionService is available.
        EXTENSION_SERVICE_AVAILABLE = "ExtensionServiceAvailable";
        /// Enough pods are available.
        AVAILABLE = "Available";
        /// Contour's and Envoy's certificates can't be issued or renewed.
        CERTIFICATES_FAILED = "CertificatesFailed";
        /// Nothing references an ExtensionService.
        NOTHING_REFERENCED = "NothingReferenced";
        /// Every referenced ExtensionService is available.
        ALL_AVAILABLE = "AllAvailable";
        /// The configuration was refused, by the API server or by what is known of Contour.
        CONFIGURATION_REFUSED = "ConfigurationRefused";
        /// The configuration was accepted.
        CONFIGURATION_ACCEPTED = "ConfigurationAccepted";
        /// The configuration was not checked yet.
        CONFIGURATION_UNCHECKED = "ConfigurationUnchecked";
        /// Contour or Envoy is being rolled out.
        ROLLING_OUT = "RollingOut";
        /// Somebody altered or deleted a ContourConfiguration that is in use; it is repaired, and Contour is being rolled to it.
        CONFIGURATION_ALTERED = "ConfigurationAltered";
        /// A rollout does not make progress.
        ROLLOUT_STUCK = "RolloutStuck";
        /// The workload does not exist yet.
        NOT_CREATED = "NotCreated";
        /// Too few pods are available.
        UNAVAILABLE = "Unavailable";
        /// An object of that name exists and is not Slipway's.
        NAME_COLLISION = "NameCollision";
        /// The API server forbids a write.
        FORBIDDEN = "Forbidden";
        /// The API server refuses an object.
        REFUSED = "Refused";
        /// The namespace is being deleted.
        NAMESPACE_TERMINATING = "NamespaceTerminating";
        /// A mutating webhook or policy changes a field as Slipway writes it, and that field must be as Slipway writes it.
        NOT_TAKEN = "NotTaken";
        /// Somebody changes an object again and again; Slipway puts it right ever less often.
        CONTESTED = "Contested";
        /// One write followed another without an end.
        UNSETTLED = "Unsettled";
        /// An object in another namespace that is no longer wanted can't be deleted.
        LEFT_BEHIND = "LeftBehind";
        /// A write failed; it is tried again.
        WRITE_FAILED = "WriteFailed";
        /// The stored object is not of the form that this version of Slipway reads.
        UNDECODABLE = "Undecodable";
        /// The admission policies are as this version of Slipway ships them.
        AS_SHIPPED = "AsShipped";
        /// An admission policy of Slipway's, or the binding of one, is absent, or not as this version ships it.
        NOT_AS_SHIPPED = "NotAsShipped";
        /// The ContourDeployment is being deleted.
        DELETING = "Deleting";
    }
}
