//! `ContourDeployment.spec`. Field names follow upstream's `projectcontour.io/v1alpha1 ContourDeployment` wherever upstream has
//! the field (Contour v1.33, `apis/projectcontour/v1alpha1/contourdeployment.go`), so that users can migrate their manifests.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{DaemonSetUpdateStrategy, DeploymentStrategy};
use k8s_openapi::api::core::v1::{ResourceRequirements, Toleration};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::ContourDeploymentStatus;

/// The desired state of one Contour (the control plane) and its Envoys (the data plane).
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
    doc = "ContourDeployment runs Project Contour and its Envoys, in any start-up order. The ExtensionServices that its configuration references may be created after it, deleted, and recreated.",
    validation = Rule::new("size(self.metadata.name) <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name must be a DNS-1035 label of at most 40 characters (a-z, 0-9 and '-', starting with a letter): the names of Services and ContourConfigurations are derived from it"),
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
    /// Settings of Contour, the control plane. Optional.
    #[serde(default)]
    pub contour: ContourSpec,
    /// Settings of Envoy, the data plane. Optional.
    #[serde(default)]
    pub envoy: EnvoySpec,
    /// Contour's configuration: the spec of a ContourConfiguration (`projectcontour.io/v1alpha1`). Optional. This CRD describes only the
    /// fields that reference ExtensionServices. Slipway passes every other field to Contour and validates it against the installed
    /// ContourConfiguration CRD.
    #[serde(default)]
    pub runtime_settings: RuntimeSettings,
    /// Settings of how the referenced ExtensionServices affect the conditions. Optional.
    #[serde(default)]
    pub extension_services: ExtensionServicesSpec,
}

/// Settings of Contour.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ContourSpec {
    /// The image of Contour. When absent, Slipway uses the Contour version that it was tested with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub image: Option<String>,
    /// Settings of Contour's Deployment. Optional.
    #[serde(default)]
    pub deployment: DeploymentSettings,
    /// Constraints on the nodes that Contour's pods run on. Optional.
    #[serde(default)]
    pub node_placement: NodePlacement,
    /// Compute resources of the `contour` container. When absent, the container has no requests and no limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// The log level of Contour (`--debug`). Defaults to `info`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_level: Option<ContourLogLevel>,
    /// The verbosity of Contour's Kubernetes client (`--kubernetes-debug`), from 0 to 9. Defaults to 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9))]
    pub kubernetes_log_level: Option<i32>,
    /// The format of Contour's log (`--log-format`). Defaults to `text`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_format: Option<ContourLogFormat>,
    /// Limits on Contour's requests to the API server. Optional.
    #[serde(default)]
    pub kubernetes_client: KubernetesClient,
    /// The times of the election of Contour's leader. Optional.
    #[serde(default)]
    pub leader_election: LeaderElection,
    /// A partial pod template (`metadata` and `spec`) that Slipway merges over Contour's pod template: lists of containers, volumes and the
    /// like by name, other lists as a whole. What Contour needs must stay as it is; a change of it is refused with the path of the field.
    /// Optional.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<Map<String, Value>>,
}

/// Settings of the Envoys.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.deployment) || !(has(self.deployment.replicas) || has(self.deployment.strategy) || has(self.deployment.minReadySeconds)) || (has(self.workloadType) && self.workloadType == 'Deployment')").message("deployment.replicas, deployment.strategy and deployment.minReadySeconds need workloadType: Deployment (a DaemonSet runs one Envoy on each node)"))]
#[x_kube(validation = Rule::new("!has(self.daemonSet) || !(has(self.daemonSet.updateStrategy) || has(self.daemonSet.minReadySeconds)) || !has(self.workloadType) || self.workloadType == 'DaemonSet'").message("daemonSet.updateStrategy and daemonSet.minReadySeconds need workloadType: DaemonSet"))]
pub struct EnvoySpec {
    /// The image of Envoy. When absent, Slipway uses the Envoy version that belongs to the default Contour version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub image: Option<String>,
    /// The kind of workload that runs the Envoys. `DaemonSet` runs one Envoy on each node. `Deployment` runs the number of pods in
    /// `deployment.replicas`. Defaults to `DaemonSet`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_type: Option<WorkloadType>,
    /// Settings of Envoy's Deployment. Optional. They need `workloadType: Deployment`.
    #[serde(default)]
    pub deployment: DeploymentSettings,
    /// Settings of Envoy's DaemonSet. Optional. They need `workloadType: DaemonSet`.
    #[serde(default)]
    pub daemon_set: DaemonSetSettings,
    /// Settings of the Service in front of the Envoys. Optional.
    #[serde(default)]
    pub network_publishing: NetworkPublishing,
    /// Constraints on the nodes that Envoy's pods run on. Optional.
    #[serde(default)]
    pub node_placement: NodePlacement,
    /// Compute resources of the `envoy` container. When absent, the container has no requests and no limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// The log level of Envoy (`--log-level`). Defaults to `info`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_level: Option<EnvoyLogLevel>,
    /// How an Envoy drains its connections before it stops. Optional.
    #[serde(default)]
    pub shutdown: Shutdown,
    /// The base id of Envoy's shared memory (`--base-id`). Envoys that share a node's network need different ones. Defaults to 0.
    #[serde(default, rename = "baseID", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub base_id: Option<i32>,
    /// The size of Envoy's heap, in bytes, from which Envoy protects itself: it shrinks the heap at 95 % of this size, and accepts no
    /// connections at 98 %. 0 means no limit, which is also the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub overload_max_heap_size: Option<i64>,
    /// The maximum number of connections from clients to one Envoy, on all listeners together. 0 means no limit, which is also the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub overload_max_downstream_connections: Option<i64>,
    /// Additional arguments of Envoy, each as `--flag` or `--flag=value`. Optional. The reference page lists the flags. Envoy would exit on
    /// an unknown one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 1024)))]
    pub extra_args: Vec<String>,
    /// A partial pod template (`metadata` and `spec`) that Slipway merges over Envoy's pod template: lists of containers, volumes and the
    /// like by name, other lists as a whole. What Envoy needs must stay as it is; a change of it is refused with the path of the field.
    /// Optional.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<Map<String, Value>>,
}

/// Settings of a Deployment.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentSettings {
    /// The number of pods. When absent, Slipway creates the Deployment with 2 and does not change the number afterwards, so that another
    /// controller, for example an autoscaler, can set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub replicas: Option<i32>,
    /// How new pods replace old ones. When absent, Slipway uses the strategy of Contour's own manifests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<DeploymentStrategy>,
    /// The time in seconds for which a new pod must be ready before it counts as available. Defaults to 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 300))]
    pub min_ready_seconds: Option<i32>,
}

/// Settings of a DaemonSet.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DaemonSetSettings {
    /// How new pods replace old ones. When absent, at most a tenth of the pods is replaced at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_strategy: Option<DaemonSetUpdateStrategy>,
    /// The time in seconds for which a new pod must be ready before it counts as available. Defaults to 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 300))]
    pub min_ready_seconds: Option<i32>,
}

/// Limits on Contour's requests to the API server.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct KubernetesClient {
    /// The number of requests per second (`--kubernetes-client-qps`). When absent, the default of Contour's client library applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub qps: Option<i32>,
    /// The number of requests that may exceed the rate for a moment (`--kubernetes-client-burst`). When absent, the default of Contour's
    /// client library applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub burst: Option<i32>,
}

/// The times of the election of Contour's leader, each a Go duration, for example `15s`. `leaseDuration` must be longer than
/// `renewDeadline`, and `renewDeadline` must be longer than 1.2 times `retryPeriod`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LeaderElection {
    /// The time after which another Contour may take over from a leader that does not renew its Lease. Defaults to `15s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub lease_duration: Option<String>,
    /// The time after which a leader that cannot renew its Lease gives up. Defaults to `10s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub renew_deadline: Option<String>,
    /// The time between two attempts. Defaults to `2s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub retry_period: Option<String>,
}

/// How an Envoy drains its connections before it stops. First `drainDelay` passes. Then Envoy fails its health checks and drains. After
/// `checkDelay`, the number of open connections is checked every `checkInterval`. Envoy stops when at most `minOpenConnections` are open, and
/// in any case after `gracePeriodSeconds`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Shutdown {
    /// The time before Envoy begins to drain: a Go duration. Defaults to `0s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub drain_delay: Option<String>,
    /// The time between the beginning of the drain and the first check: a Go duration. Defaults to `0s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub check_delay: Option<String>,
    /// The time between two checks: a Go duration. Defaults to `5s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub check_interval: Option<String>,
    /// The number of open connections at which Envoy may stop. Defaults to 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub min_open_connections: Option<i32>,
    /// The time in seconds after which the kubelet kills an Envoy that has not stopped. Defaults to 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub grace_period_seconds: Option<i64>,
}

/// Constraints on the nodes that pods run on.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NodePlacement {
    /// Labels that a node must have. Slipway adds `kubernetes.io/os: linux` unless this field sets that label.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(length(max = 64))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the pods tolerate. Optional.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64))]
    pub tolerations: Vec<Toleration>,
}

/// The Service in front of the Envoys.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NetworkPublishing {
    /// The type of the Service. `LoadBalancerService`, `NodePortService` and `ClusterIPService` stand for the Service types `LoadBalancer`,
    /// `NodePort` and `ClusterIP`. Defaults to `LoadBalancerService`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub type_: Option<NetworkPublishingType>,
    /// The external traffic policy of the Service. With `Local` a node sends external traffic only to Envoys on the same node, which
    /// preserves the client's address. With `Cluster` a node also sends it to Envoys on other nodes. Defaults to `Local`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_traffic_policy: Option<ExternalTrafficPolicy>,
    /// The IP family policy of the Service. Defaults to `SingleStack`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_family_policy: Option<IpFamilyPolicy>,
    /// Annotations that Slipway sets on the Service. Optional. Slipway does not change annotations of other controllers, for example of a
    /// cloud provider.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(length(max = 64))]
    pub service_annotations: BTreeMap<String, String>,
    /// A partial Service (`metadata` and `spec`) that Slipway merges over the Service, for example with `loadBalancerClass`. What Envoy needs
    /// must stay as it is; a change of it is refused with the path of the field. Optional.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Map<String, Value>>,
}

/// Contour's configuration: a `ContourConfigurationSpec` of Contour v1.33.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.xdsServer)").message("xdsServer is set by Slipway: Slipway issues the certificates for the connection between Contour and Envoy; remove this field"))]
#[x_kube(validation = Rule::new("!has(self.gateway)").message("gateway (Gateway API) is not supported by this version of Slipway; remove this field"))]
#[x_kube(validation = Rule::new("!has(self.envoy) || !has(self.envoy.service)").message("envoy.service is set by Slipway: Slipway creates the Service in front of the Envoys; remove this field"))]
pub struct RuntimeSettings {
    /// External authorization for every virtual host that does not configure its own. When absent, Contour configures no global
    /// authorization.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub global_ext_auth: Option<GlobalExtAuth>,
    /// The global rate limit service. When absent, Contour configures no global rate limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit_service: Option<RateLimitService>,
    /// The tracing settings of Envoy. When absent, requests are not traced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracing: Option<Tracing>,
    /// All other fields, unchanged.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Global external authorization (Contour: `AuthorizationServer`, v1.33).
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct GlobalExtAuth {
    /// The ExtensionService that authorizes requests. It does not need to exist yet.
    pub extension_ref: ExtensionRef,
    /// The behavior while the service is unavailable. If true, requests pass unchecked. If false, requests are denied. Defaults to false.
    #[serde(default)]
    pub fail_open: bool,
    /// The time within which the service must answer: a Go duration, for example `500ms`, or `infinity` for no limit. When absent, the
    /// response timeout of the ExtensionService (`timeoutPolicy.response`) applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 64),
        regex(
            pattern = r"^(((\d*(\.\d*)?h)|(\d*(\.\d*)?m)|(\d*(\.\d*)?s)|(\d*(\.\d*)?ms)|(\d*(\.\d*)?us)|(\d*(\.\d*)?µs)|(\d*(\.\d*)?ns))+|infinity|infinite)$"
        )
    )]
    pub response_timeout: Option<String>,
    /// Defaults for the virtual hosts. `disabled` turns authorization off; `context` holds additional entries that the service receives.
    /// Optional.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub auth_policy: Map<String, Value>,
    /// Settings for sending the request body to the service: `maxRequestBytes`, `allowPartialMessage` and `packAsBytes`. When absent, Envoy
    /// does not send the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub with_request_body: Option<Map<String, Value>>,
}

/// A reference to an ExtensionService, in the form that external authorization uses.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.apiVersion) || self.apiVersion == 'projectcontour.io/v1alpha1'").message("apiVersion must be projectcontour.io/v1alpha1 or absent"))]
pub struct ExtensionRef {
    /// The API version of the ExtensionService. The only valid value is `projectcontour.io/v1alpha1`, which is also the default.
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
    /// The ExtensionService that limits rates. It does not need to exist yet.
    pub extension_service: NamespacedRef,
    /// The domain that Envoy sends to the rate limit service. Required, because Envoy refuses its whole listener configuration when the
    /// domain is empty.
    #[schemars(length(min = 1, max = 1024))]
    pub domain: String,
    /// The behavior while the service is unavailable. If true, requests pass without rate limits. If false, rate-limited requests are
    /// denied. Defaults to false.
    #[serde(default)]
    pub fail_open: bool,
    /// Whether responses carry X-RateLimit headers. When absent, Contour's default applies, which is false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_x_rate_limit_headers: Option<bool>,
    /// Whether rate-limited gRPC requests get the status `RESOURCE_EXHAUSTED` instead of `UNAVAILABLE`. When absent, Contour's default
    /// applies, which is false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_resource_exhausted_code: Option<bool>,
    /// The global rate limit policy for virtual hosts that do not configure their own. Optional.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_global_rate_limit_policy: Option<Map<String, Value>>,
}

/// Tracing with OpenTelemetry (Contour: `TracingConfig`, v1.33).
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Tracing {
    /// The ExtensionService of the collector. It does not need to exist yet.
    pub extension_service: NamespacedRef,
    /// The service name in the spans. When absent, Contour's default applies, which is `contour`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub service_name: Option<String>,
    /// The percentage of requests that are traced, as a decimal number from 0 to 100, for example `10.5`. When absent, Contour's default
    /// applies, which is 100. Contour treats 0 as 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub overall_sampling: Option<String>,
    /// The maximum length, in characters, of the request path in a span. When absent, Contour's default applies, which is 256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub max_path_tag_length: Option<i64>,
    /// Whether spans carry the name and the namespace of the Envoy pod. When absent, Contour's default applies, which is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_pod_detail: Option<bool>,
    /// Additional tags of the spans. Optional.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64))]
    pub custom_tags: Vec<CustomTag>,
}

/// A tag of a span, with a literal value or the value of a request header.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.literal) != has(self.requestHeaderName)").message("exactly one of literal and requestHeaderName must be set"))]
pub struct CustomTag {
    /// The name of the tag.
    #[schemars(length(min = 1, max = 256))]
    pub tag_name: String,
    /// A literal value. Exactly one of `literal` and `requestHeaderName` must be set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub literal: Option<String>,
    /// The name of a request header that provides the value. Exactly one of `literal` and `requestHeaderName` must be set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub request_header_name: Option<String>,
}

/// Settings of how the referenced ExtensionServices affect the conditions.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ExtensionServicesSpec {
    /// The effect of an unavailable ExtensionService with `failOpen: false` on the condition Ready. With `Required` Ready is False while
    /// requests are denied. With `Tolerated` Ready ignores the ExtensionService, and Degraded still reports it. Defaults to `Required`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness: Option<ExtensionServiceReadiness>,
}

/// The effect of an unavailable ExtensionService with `failOpen: false` on the condition Ready. With `Required` Ready is False while
/// requests are denied. With `Tolerated` Ready ignores the ExtensionService, and Degraded still reports it. Defaults to `Required`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExtensionServiceReadiness {
    /// Ready is False while requests are denied because the ExtensionService is unavailable.
    #[default]
    Required,
    /// Ready ignores the ExtensionService, and Degraded still reports it. For installations that install the service after Contour.
    Tolerated,
}

/// The log level of Contour (`--debug`). Defaults to `info`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum ContourLogLevel {
    /// Contour's default log level.
    #[default]
    Info,
    /// All messages, including debug messages.
    Debug,
}

/// The format of Contour's log (`--log-format`). Defaults to `text`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum ContourLogFormat {
    /// Lines of text.
    #[default]
    Text,
    /// One JSON object for each message.
    Json,
}

/// The log level of Envoy (`--log-level`). Defaults to `info`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)] // Envoy's own names
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

/// The kind of workload that runs the Envoys. `DaemonSet` runs one Envoy on each node. `Deployment` runs the number of pods in
/// `deployment.replicas`. Defaults to `DaemonSet`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WorkloadType {
    /// One Envoy on each node.
    #[default]
    DaemonSet,
    /// The number of Envoys in `deployment.replicas`.
    Deployment,
}

/// The type of the Service. `LoadBalancerService`, `NodePortService` and `ClusterIPService` stand for the Service types `LoadBalancer`,
/// `NodePort` and `ClusterIP`. Defaults to `LoadBalancerService`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::enum_variant_names)] // upstream's names
pub enum NetworkPublishingType {
    /// A Service of type LoadBalancer.
    #[default]
    LoadBalancerService,
    /// A Service of type NodePort.
    NodePortService,
    /// A Service of type ClusterIP.
    #[serde(rename = "ClusterIPService")]
    ClusterIpService,
}

/// The external traffic policy of the Service. Defaults to `Local`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // Kubernetes' own names
pub enum ExternalTrafficPolicy {
    #[default]
    Local,
    Cluster,
}

/// The IP family policy of the Service. Defaults to `SingleStack`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // Kubernetes' own names
pub enum IpFamilyPolicy {
    #[default]
    SingleStack,
    PreferDualStack,
    RequireDualStack,
}
