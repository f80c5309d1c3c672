//! The Envoys: a DaemonSet or a Deployment with the same pods (upstream: `internal/provisioner/objects/dataplane`, v1.33).

use k8s_openapi::api::apps::v1::{
    DaemonSet, DaemonSetSpec, DaemonSetUpdateStrategy, Deployment, DeploymentSpec, DeploymentStrategy,
    RollingUpdateDaemonSet, RollingUpdateDeployment,
};
use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EmptyDirVolumeSource, ExecAction, HTTPGetAction, Lifecycle, LifecycleHandler, PodSpec,
    PodTemplateSpec, Probe, ResourceRequirements, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::contour::replica_fields;
use super::{
    CERTIFICATES, Component, certificate_mount, certificate_volume, container_security, contour_image, envoy_image,
    field_env, node_selector, pod_security,
};
use crate::api::{ContourDeploymentSpec, EnvoyLogLevel, Shutdown, WorkloadType};
use crate::contour::ports::{Ports, SHUTDOWN_MANAGER, XDS};
use crate::contour::preflight::GRACE_PERIOD;
use crate::plan::object::{Kind, Object};
use crate::plan::observed::Instance;
use crate::plan::overlay::{self, Overlaid};
use crate::plan::write::Desired;

/// The default number of Envoys in a Deployment.
const REPLICAS: i32 = 2;

/// The directory of the bootstrap configuration.
const CONFIGURATION: &str = "/config";

/// The directory of Envoy's admin socket and of the file that marks Envoy as drained.
const ADMIN: &str = "/admin";

/// Returns the kind of the workload that the spec specifies.
pub fn kind(spec: &ContourDeploymentSpec) -> Kind {
    match spec.envoy.workload_type.unwrap_or_default() {
        WorkloadType::DaemonSet => Kind::DaemonSet,
        WorkloadType::Deployment => Kind::Deployment,
    }
}

/// Returns the Envoys as a workload of that kind.
pub fn workload(instance: &Instance<'_>, ports: &Ports) -> Overlaid<Desired> {
    let owner = &instance.owner;
    let spec = &instance.spec.envoy;
    let Overlaid {
        object: template,
        problems,
    } = template(instance, ports);
    let slowly = || Some(IntOrString::String("10%".to_owned()));
    let object = match spec.workload_type.unwrap_or_default() {
        WorkloadType::DaemonSet => {
            let settings = &spec.daemon_set;
            let daemon_set = DaemonSet {
                metadata: owner.metadata(Kind::DaemonSet, &owner.namespace, &owner.envoy()),
                spec: Some(DaemonSetSpec {
                    selector: Component::Envoy.label_selector(owner),
                    template,
                    update_strategy: Some(settings.update_strategy.clone().unwrap_or_else(|| {
                        DaemonSetUpdateStrategy {
                            type_: Some("RollingUpdate".to_owned()),
                            rolling_update: Some(RollingUpdateDaemonSet {
                                max_unavailable: slowly(),
                                max_surge: None,
                            }),
                        }
                    })),
                    min_ready_seconds: settings.min_ready_seconds.filter(|seconds| *seconds > 0),
                    ..DaemonSetSpec::default()
                }),
                ..DaemonSet::default()
            };
            Desired::shared(Object::of(&daemon_set))
        }
        WorkloadType::Deployment => {
            let settings = &spec.deployment;
            let deployment = Deployment {
                metadata: owner.metadata(Kind::Deployment, &owner.namespace, &owner.envoy()),
                spec: Some(DeploymentSpec {
                    replicas: Some(settings.replicas.unwrap_or(REPLICAS)),
                    selector: Component::Envoy.label_selector(owner),
                    strategy: Some(settings.strategy.clone().unwrap_or_else(|| DeploymentStrategy {
                        type_: Some("RollingUpdate".to_owned()),
                        // With fewer than ten Envoys, 10 % is rounded: one additional pod, and no unavailable pod.
                        rolling_update: Some(RollingUpdateDeployment {
                            max_surge: slowly(),
                            max_unavailable: slowly(),
                        }),
                    })),
                    min_ready_seconds: settings.min_ready_seconds.filter(|seconds| *seconds > 0),
                    template,
                    ..DeploymentSpec::default()
                }),
                ..Deployment::default()
            };
            Desired {
                object: Object::of(&deployment),
                fields: replica_fields(settings.replicas),
            }
        }
    };
    Overlaid { object, problems }
}

fn template(instance: &Instance<'_>, ports: &Ports) -> Overlaid<PodTemplateSpec> {
    let owner = &instance.owner;
    let spec = &instance.spec.envoy;
    let affinity = match spec.workload_type.unwrap_or_default() {
        WorkloadType::DaemonSet => None,
        WorkloadType::Deployment => Some(Component::Envoy.spread(owner)),
    };
    let template = PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(Component::Envoy.pod_labels(owner)),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            affinity,
            automount_service_account_token: Some(false),
            init_containers: Some(vec![bootstrap(instance)]),
            containers: vec![shutdown_manager(instance), envoy(instance, ports)],
            node_selector: Some(node_selector(&spec.node_placement)),
            security_context: Some(pod_security()),
            service_account_name: Some(owner.envoy()),
            // The upper bound of `contour envoy shutdown`.
            termination_grace_period_seconds: Some(spec.shutdown.grace_period_seconds.unwrap_or(GRACE_PERIOD)),
            tolerations: Some(spec.node_placement.tolerations.clone()).filter(|tolerations| !tolerations.is_empty()),
            volumes: Some(vec![
                certificate_volume(owner.envoy_secret()),
                empty_volume("configuration"),
                empty_volume("admin"),
            ]),
            ..PodSpec::default()
        }),
    };
    overlay::envoy(template, spec.pod_template.as_ref())
}

/// Returns the container that writes Envoy's bootstrap configuration: the address of Contour and the files of the certificates. The host
/// name is the name of the Service. Envoy identifies the other side as this ContourDeployment's Contour by the name `contour` in its
/// certificate, whatever the name of the Service is (`internal/envoy/v3/bootstrap.go`, v1.33).
fn bootstrap(instance: &Instance<'_>) -> Container {
    let owner = &instance.owner;
    let spec = &instance.spec.envoy;
    let mut arguments = vec![
        "bootstrap".to_owned(),
        format!("{CONFIGURATION}/envoy.json"),
        format!("--xds-address={}", owner.contour()),
        format!("--xds-port={XDS}"),
        "--xds-resource-version=v3".to_owned(),
        format!("--resources-dir={CONFIGURATION}/resources"),
        format!("--envoy-cafile={CERTIFICATES}/ca.crt"),
        format!("--envoy-cert-file={CERTIFICATES}/tls.crt"),
        format!("--envoy-key-file={CERTIFICATES}/tls.key"),
    ];
    let limits = [
        ("--overload-max-heap", spec.overload_max_heap_size),
        (
            "--overload-downstream-max-conn",
            spec.overload_max_downstream_connections,
        ),
    ];
    let limits = limits
        .into_iter()
        .filter_map(|(flag, limit)| Some((flag, limit.filter(|limit| *limit > 0)?)));
    arguments.extend(limits.map(|(flag, limit)| format!("{flag}={limit}")));
    Container {
        name: "bootstrap".to_owned(),
        image: Some(contour_image(instance.spec)),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: Some(vec!["contour".to_owned()]),
        args: Some(arguments),
        env: Some(vec![field_env("CONTOUR_NAMESPACE", "metadata.namespace")]),
        resources: Some(small_resources()),
        security_context: Some(container_security()),
        volume_mounts: Some(vec![
            certificate_mount(),
            mount("configuration", CONFIGURATION, Access::Write),
        ]),
        ..Container::default()
    }
}

/// Returns the container that drains Envoy when the pod terminates.
fn shutdown_manager(instance: &Instance<'_>) -> Container {
    let Shutdown {
        drain_delay,
        check_delay,
        check_interval,
        min_open_connections,
        grace_period_seconds: _,
    } = &instance.spec.envoy.shutdown;
    let optional = [
        ("--drain-delay", drain_delay.clone()),
        ("--check-delay", check_delay.clone()),
        ("--check-interval", check_interval.clone()),
        (
            "--min-open-connections",
            min_open_connections.map(|number| number.to_string()),
        ),
    ];
    let given = optional
        .into_iter()
        .filter_map(|(flag, value)| Some(format!("{flag}={}", value?)));
    let drain = ["/bin/contour", "envoy", "shutdown"].map(str::to_owned).into_iter();
    let drain = drain.chain(given).collect();
    Container {
        name: "shutdown-manager".to_owned(),
        image: Some(contour_image(instance.spec)),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: Some(vec!["/bin/contour".to_owned()]),
        args: Some(["envoy", "shutdown-manager"].map(str::to_owned).to_vec()),
        lifecycle: Some(Lifecycle {
            pre_stop: Some(LifecycleHandler {
                exec: Some(ExecAction { command: Some(drain) }),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }),
        resources: Some(small_resources()),
        security_context: Some(container_security()),
        volume_mounts: Some(vec![mount("admin", ADMIN, Access::Write)]),
        ..Container::default()
    }
}

fn envoy(instance: &Instance<'_>, ports: &Ports) -> Container {
    let spec = &instance.spec.envoy;
    let get = |path: &str, port| HTTPGetAction {
        path: Some(path.to_owned()),
        port: IntOrString::Int(port),
        scheme: Some("HTTP".to_owned()),
        ..HTTPGetAction::default()
    };
    let mut arguments = [
        "-c",
        &format!("{CONFIGURATION}/envoy.json"),
        "--service-cluster",
        "$(CONTOUR_NAMESPACE)",
        "--service-node",
        "$(ENVOY_POD_NAME)",
        "--log-level",
        log_level(spec.log_level.unwrap_or_default()),
    ]
    .map(str::to_owned)
    .to_vec();
    if let Some(id) = spec.base_id.filter(|id| *id > 0) {
        arguments.extend(["--base-id".to_owned(), id.to_string()]);
    }
    // Envoy does not understand `--flag=value` (TCLAP; 1.38.3, `source/server/options_impl.cc`).
    let words = spec.extra_args.iter().flat_map(|argument| argument.splitn(2, '='));
    arguments.extend(words.map(str::to_owned));
    Container {
        name: "envoy".to_owned(),
        image: Some(envoy_image(instance)),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: Some(vec!["envoy".to_owned()]),
        args: Some(arguments),
        // If `tracing.includePodDetail` is not false, spans also contain CONTOUR_NAMESPACE.
        env: Some(vec![
            field_env("CONTOUR_NAMESPACE", "metadata.namespace"),
            field_env("ENVOY_POD_NAME", "metadata.name"),
        ]),
        lifecycle: Some(Lifecycle {
            // The request returns when the shutdown manager reports that Envoy is drained. Envoy receives no signal before.
            pre_stop: Some(LifecycleHandler {
                http_get: Some(get("/shutdown", SHUTDOWN_MANAGER)),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }),
        ports: Some(container_ports(ports)),
        // Contour configures the listener of the probe (`internal/envoy/v3/stats.go`, v1.33), so an Envoy without a configuration is not
        // ready. There is no liveness probe, because an Envoy without a Contour keeps serving.
        readiness_probe: Some(Probe {
            http_get: Some(get("/ready", ports.envoy_health)),
            initial_delay_seconds: Some(1),
            period_seconds: Some(4),
            timeout_seconds: Some(1),
            failure_threshold: Some(3),
            ..Probe::default()
        }),
        resources: spec.resources.clone(),
        security_context: Some(container_security()),
        volume_mounts: Some(vec![
            certificate_mount(),
            mount("configuration", CONFIGURATION, Access::Read),
            mount("admin", ADMIN, Access::Write),
        ]),
        ..Container::default()
    }
}

fn container_ports(ports: &Ports) -> Vec<ContainerPort> {
    let port = |name: &str, number| ContainerPort {
        name: Some(name.to_owned()),
        container_port: number,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    let mut container_ports = vec![
        port("http", ports.envoy_http),
        port("https", ports.envoy_https),
        port("metrics", ports.envoy_metrics),
    ];
    if ports.envoy_health != ports.envoy_metrics {
        container_ports.push(port("health", ports.envoy_health));
    }
    container_ports
}

/// Returns upstream's amounts. The CPU limit is generous because a throttled shutdown manager responds late (upstream #7366).
fn small_resources() -> ResourceRequirements {
    let amounts = |cpu: &str, memory: &str| {
        Some(
            [("cpu", cpu), ("memory", memory)]
                .map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned())))
                .into(),
        )
    };
    ResourceRequirements {
        requests: amounts("25m", "50Mi"),
        limits: amounts("200m", "100Mi"),
        ..ResourceRequirements::default()
    }
}

/// The access of a container to a volume.
#[derive(Clone, Copy)]
enum Access {
    Read,
    Write,
}

fn mount(volume: &str, path: &str, access: Access) -> VolumeMount {
    let read_only = match access {
        Access::Read => Some(true),
        Access::Write => None,
    };
    VolumeMount {
        name: volume.to_owned(),
        mount_path: path.to_owned(),
        read_only,
        ..VolumeMount::default()
    }
}

fn empty_volume(name: &str) -> Volume {
    Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Volume::default()
    }
}

fn log_level(level: EnvoyLogLevel) -> &'static str {
    match level {
        EnvoyLogLevel::Trace => "trace",
        EnvoyLogLevel::Debug => "debug",
        EnvoyLogLevel::Info => "info",
        EnvoyLogLevel::Warn => "warn",
        EnvoyLogLevel::Error => "error",
        EnvoyLogLevel::Critical => "critical",
        EnvoyLogLevel::Off => "off",
    }
}
