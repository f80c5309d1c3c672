//! `ContourDeployment.spec`. Field names follow upstream's `projectcontour.io/v1alpha1 ContourDeployment` wherever it has
//! the field (Contour v1.33, `apis/projectcontour/v1alpha1/contourdeployment.go`), so that a file can be carried over.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ResourceRequirements, Toleration};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::ContourDeploymentStatus;

/// What to run: one Contour (its control plane) and its Envoys (the data plane).
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "contour.slipway.dev",
    version = "v1alpha1",
    kind = "ContourDeployment",
    plural = "contourdeployments",
    singular = "contourdeployment",
    namespaced,
    status = "ContourDeploymentStatus",
    shortname = "cdep",
    category = "slipway",
    derive = "Default",
    derive = "PartialEq",
    doc = "ContourDeployment runs Project Contour and its Envoys, in any start-up order: an ExtensionService that its configuration references may come later, go, and come back.",
    validation = Rule::new("size(self.metadata.name) <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name must be a DNS-1035 label of at most 40 characters (a-z, 0-9 and '-', starting with a letter): the names of Services and ContourConfigurations are made from it"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Degraded", type_ = "string", json_path = ".status.conditions[?(@.type==\"Degraded\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Extensions", type_ = "string", json_path = ".status.extensionServicesAvailable"),
    printcolumn(name = "Contour", type_ = "string", json_path = ".status.contour"),
    printcolumn(name = "Envoy", type_ = "string", json_path = ".status.envoy"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct ContourDeploymentSpec {
    /// Contour, the control plane.
    #[serde(default)]
    pub contour: ContourSpec,
    /// Envoy, the data plane.
    #[serde(default)]
    pub envoy: EnvoySpec,
    /// Contour's configuration: the spec of a ContourConfiguration (`projectcontour.io/v1alpha1`). The three references to
    /// ExtensionServices are described here; every other field is passed on and checked against the ContourConfiguration
    /// CRD that is installed.
    #[serde(default)]
    pub runtime_settings: RuntimeSettings,
    /// How the state of the referenced ExtensionServices counts.
    #[serde(default)]
    pub extension_services: ExtensionServicesSpec,
}

/// Contour's Deployment.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ContourSpec {
    /// Contour's image. Default: the version this Slipway was tested with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub image: Option<String>,
    /// Settings of the Deployment.
    #[serde(default)]
    pub deployment: ReplicaSettings,
    /// Where the pods may run.
    #[serde(default)]
    pub node_placement: NodePlacement,
    /// Compute resources of the contour container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Contour's own log level. Default: info.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_level: Option<ContourLogLevel>,
    /// Verbosity of Contour's Kubernetes client (`--kubernetes-debug`), 0 to 9. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9))]
    pub kubernetes_log_level: Option<i32>,
}

/// The Envoys.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.deployment) || !has(self.deployment.replicas) || (has(self.workloadType) && self.workloadType == 'Deployment')").message("deployment.replicas needs workloadType: Deployment (a DaemonSet runs one Envoy on each node)"))]
pub struct EnvoySpec {
    /// Envoy's image. Default: the version that belongs to the default Contour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub image: Option<String>,
    /// One Envoy on each node (DaemonSet, the default), or a number of replicas (Deployment).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_type: Option<WorkloadType>,
    /// Settings of the Deployment, if that is the workload type.
    #[serde(default)]
    pub deployment: ReplicaSettings,
    /// How the Envoys are reached.
    #[serde(default)]
    pub network_publishing: NetworkPublishing,
    /// Where the pods may run.
    #[serde(default)]
    pub node_placement: NodePlacement,
    /// Compute resources of the envoy container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Envoy's log level. Default: info.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_level: Option<EnvoyLogLevel>,
}

/// Settings of a Deployment.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaSettings {
    /// Number of pods. When it is not set Slipway starts with 2 and leaves the number to others, an autoscaler for instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub replicas: Option<i32>,
}

/// Where pods may run.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NodePlacement {
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(length(max = 64))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that are tolerated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64))]
    pub tolerations: Vec<Toleration>,
}

/// The Service in front of the Envoys.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NetworkPublishing {
    /// The type of the Service. Default: LoadBalancerService.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub type_: Option<NetworkPublishingType>,
    /// Whether nodes pass traffic on to Envoys on other nodes. Default: Local, which keeps the client's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_traffic_policy: Option<ExternalTrafficPolicy>,
    /// IP families of the Service. Default: SingleStack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_family_policy: Option<IpFamilyPolicy>,
    /// Annotations for the Service; annotations that others (a cloud, for instance) put there are left alone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(length(max = 64))]
    pub service_annotations: BTreeMap<String, String>,
}

/// Contour's configuration, a `ContourConfigurationSpec` of Contour v1.33.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.xdsServer)").message("xdsServer is set by Slipway: Contour and Envoy talk over certificates that Slipway makes; remove this field"))]
#[x_kube(validation = Rule::new("!has(self.gateway)").message("gateway (Gateway API) is not supported by this version of Slipway; remove this field"))]
#[x_kube(validation = Rule::new("!has(self.envoy) || !has(self.envoy.service)").message("envoy.service is set by Slipway: it names the Service that Slipway makes for the Envoys; remove this field"))]
pub struct RuntimeSettings {
    /// External authorization for every virtual host that does not choose its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub global_ext_auth: Option<GlobalExtAuth>,
    /// The global rate limit service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit_service: Option<RateLimitService>,
    /// Where Envoy sends its traces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracing: Option<Tracing>,
    /// Everything else, as it was written.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Global external authorization (Contour: `AuthorizationServer`, v1.33).
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct GlobalExtAuth {
    /// The ExtensionService that decides. It may come later than this object.
    pub extension_ref: ExtensionRef,
    /// What happens to requests while the service can't be asked: pass unchecked (true) or be denied (false, the default).
    #[serde(default)]
    pub fail_open: bool,
    /// How long a decision may take, a Go duration such as `500ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 64),
        regex(
            pattern = r"^(((\d*(\.\d*)?h)|(\d*(\.\d*)?m)|(\d*(\.\d*)?s)|(\d*(\.\d*)?ms)|(\d*(\.\d*)?us)|(\d*(\.\d*)?µs)|(\d*(\.\d*)?ns))+|infinity|infinite)$"
        )
    )]
    pub response_timeout: Option<String>,
    /// Defaults of the virtual hosts: `disabled`, and `context` (extra entries for the service).
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub auth_policy: Map<String, Value>,
    /// Whether and how the request's body is sent along: `maxRequestBytes`, `allowPartialMessage`, `packAsBytes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub with_request_body: Option<Map<String, Value>>,
}

/// A reference to an ExtensionService, in the form that external authorization uses.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.apiVersion) || self.apiVersion == 'projectcontour.io/v1alpha1'").message("apiVersion must be projectcontour.io/v1alpha1, or be left out"))]
pub struct ExtensionRef {
    /// `projectcontour.io/v1alpha1`, which is also the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub api_version: Option<String>,
    /// The namespace of the ExtensionService.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: String,
    /// The name of the ExtensionService.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
}

/// A reference to an ExtensionService, in the form that rate limiting and tracing use.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NamespacedRef {
    /// The namespace of the ExtensionService.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: String,
    /// The name of the ExtensionService.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
}

/// Global rate limiting (Contour: `RateLimitServiceConfig`, v1.33).
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RateLimitService {
    /// The ExtensionService that counts. It may come later than this object.
    pub extension_service: NamespacedRef,
    /// The rate limit service's domain. Envoy refuses its whole listener configuration when it is empty, so it is required.
    #[schemars(length(min = 1, max = 1024))]
    pub domain: String,
    /// What happens to rate-limited requests while the service can't be asked: pass (true) or be denied (false, the default).
    #[serde(default)]
    pub fail_open: bool,
    /// Whether answers carry X-RateLimit headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_x_rate_limit_headers: Option<bool>,
    /// Whether gRPC clients see `RESOURCE_EXHAUSTED` instead of `UNAVAILABLE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_resource_exhausted_code: Option<bool>,
    /// The policy for virtual hosts without one of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_global_rate_limit_policy: Option<Map<String, Value>>,
}

/// Tracing with OpenTelemetry (Contour: `TracingConfig`, v1.33).
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Tracing {
    /// The ExtensionService of the collector. It may come later than this object.
    pub extension_service: NamespacedRef,
    /// The name that the spans carry. Contour's default: contour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub service_name: Option<String>,
    /// Percentage of requests that are traced, as a decimal number, `10.5` for instance. Contour's default: 100, and it takes
    /// 0 for 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub overall_sampling: Option<String>,
    /// How much of the path goes into a span, in characters. Contour's default: 256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub max_path_tag_length: Option<i64>,
    /// Whether spans carry Envoy's pod name and namespace. Contour's default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_pod_detail: Option<bool>,
    /// Further tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64))]
    pub custom_tags: Vec<CustomTag>,
}

/// A tag of a span: a literal, or the value of a request header.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.literal) != has(self.requestHeaderName)").message("exactly one of literal and requestHeaderName must be set"))]
pub struct CustomTag {
    /// The tag's name.
    #[schemars(length(min = 1, max = 256))]
    pub tag_name: String,
    /// A fixed value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub literal: Option<String>,
    /// The request header whose value is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub request_header_name: Option<String>,
}

/// How the state of the referenced ExtensionServices counts.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ExtensionServicesSpec {
    /// Whether Ready waits for a missing ExtensionService whose `failOpen` is false. Default: Required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness: Option<ExtensionServiceReadiness>,
}

/// Whether Ready waits for a missing ExtensionService.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExtensionServiceReadiness {
    /// Ready is False while requests are denied because of it.
    #[default]
    Required,
    /// Ready ignores it, Degraded still says so. For installations that bring the service after Contour.
    Tolerated,
}

/// Contour's log levels (`--debug`).
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum ContourLogLevel {
    /// The usual.
    #[default]
    Info,
    /// Everything.
    Debug,
}

/// Envoy's log levels (`--log-level`).
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)] // Envoy's own words
pub enum EnvoyLogLevel {
    Trace,
    Debug,
    #[default]
    Info,
    Warn,
    Error,
    Critical,
    Off,
}

/// What the Envoys run as.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WorkloadType {
    /// One on each node.
    #[default]
    DaemonSet,
    /// A number of replicas.
    Deployment,
}

/// The type of the Service in front of the Envoys.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::enum_variant_names)] // upstream's words
pub enum NetworkPublishingType {
    /// type: LoadBalancer
    #[default]
    LoadBalancerService,
    /// type: NodePort
    NodePortService,
    /// type: ClusterIP
    #[serde(rename = "ClusterIPService")]
    ClusterIpService,
}

/// Whether nodes pass external traffic on to other nodes.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // Kubernetes' own words
pub enum ExternalTrafficPolicy {
    #[default]
    Local,
    Cluster,
}

/// IP families of a Service.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // Kubernetes' own words
pub enum IpFamilyPolicy {
    #[default]
    SingleStack,
    PreferDualStack,
    RequireDualStack,
}
