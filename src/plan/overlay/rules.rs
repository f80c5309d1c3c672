//! What an overlay may change. A field without a rule is Slipway's.

use super::mounts;

/// A rule for a value of the merged object.
pub enum Rule {
    /// The user sets the value.
    Free,
    /// Slipway sets the value.
    Own,
    /// This typed field of the spec sets the value.
    Typed(&'static str),
    /// Nobody sets the value, for this reason.
    Refused(&'static str),
    /// Rules for the fields of an object.
    Fields(&'static [(&'static str, Rule)]),
    /// Labels or annotations: the user may add keys, except those of Slipway.
    Additions,
    /// A list with a key for each item: Slipway's items come first, and the user may add items.
    Items {
        /// The field with the key.
        key: &'static str,
        /// The rule for the item of Slipway's with this key.
        own: fn(&str) -> &'static Rule,
        /// Returns the reason why the user must not add an item, given all items of Slipway's.
        added: fn(&serde_json::Value, &[serde_json::Value]) -> Option<String>,
    },
}

use Rule::{Additions, Fields, Free, Items, Own, Refused, Typed};

/// The rules for Contour's pod template.
pub static CONTOUR: Rule = Fields(&[
    ("metadata", METADATA),
    ("spec", Fields(&pod("spec.contour.nodePlacement", Free))),
]);

/// The rules for Envoy's pod template.
pub static ENVOY: Rule = Fields(&[
    ("metadata", METADATA),
    (
        "spec",
        Fields(&pod(
            "spec.envoy.nodePlacement",
            Typed("spec.envoy.shutdown.gracePeriodSeconds"),
        )),
    ),
]);

/// The rules for the Service in front of the Envoys.
pub static SERVICE: Rule = Fields(&[
    ("metadata", METADATA),
    (
        "spec",
        Fields(&[
            ("allocateLoadBalancerNodePorts", Free),
            ("clusterIP", Free),
            ("clusterIPs", Free),
            ("healthCheckNodePort", Free),
            ("internalTrafficPolicy", Free),
            ("ipFamilies", Free),
            ("loadBalancerClass", Free),
            ("loadBalancerIP", Free),
            ("loadBalancerSourceRanges", Free),
            ("sessionAffinity", Free),
            ("sessionAffinityConfig", Free),
            ("trafficDistribution", Free),
            (
                "ports",
                Items {
                    key: "port",
                    own: |_| &SERVICE_PORT,
                    added: any,
                },
            ),
            ("type", Typed("spec.envoy.networkPublishing.type")),
            (
                "externalTrafficPolicy",
                Typed("spec.envoy.networkPublishing.externalTrafficPolicy"),
            ),
            ("ipFamilyPolicy", Typed("spec.envoy.networkPublishing.ipFamilyPolicy")),
            (
                "externalIPs",
                Refused("a Service with external addresses takes the traffic of other Services with these addresses"),
            ),
            (
                "publishNotReadyAddresses",
                Refused("an Envoy that is not ready has no configuration"),
            ),
        ]),
    ),
]);

static SERVICE_PORT: Rule = Fields(&[("appProtocol", Free), ("nodePort", Free)]);

const METADATA: Rule = Fields(&[("labels", Additions), ("annotations", Additions)]);

/// Returns the rules for the spec of a pod. `placement` is the field of the spec that places the pods on nodes, and `grace` is the rule for the
/// grace period.
const fn pod(placement: &'static str, grace: Rule) -> [(&'static str, Rule); 28] {
    [
        ("affinity", Free),
        (
            "containers",
            Items {
                key: "name",
                own: container,
                added: any,
            },
        ),
        ("dnsConfig", Free),
        ("dnsPolicy", Free),
        ("enableServiceLinks", Free),
        ("hostAliases", Free),
        ("hostUsers", Free),
        ("hostname", Free),
        ("imagePullSecrets", Free),
        // Slipway's containers come first, so Envoy's bootstrap configuration is written before any other container starts.
        (
            "initContainers",
            Items {
                key: "name",
                own: container,
                added: any,
            },
        ),
        ("nodeName", Free),
        ("nodeSelector", Typed(placement)),
        ("preemptionPolicy", Free),
        ("priorityClassName", Free),
        ("readinessGates", Free),
        ("resourceClaims", Free),
        ("resources", Free),
        ("runtimeClassName", Free),
        ("schedulerName", Free),
        ("schedulingGates", Free),
        (
            "securityContext",
            Fields(&[
                ("fsGroup", Free),
                ("fsGroupChangePolicy", Free),
                ("supplementalGroups", Free),
                ("supplementalGroupsPolicy", Free),
                ("sysctls", Free),
            ]),
        ),
        ("setHostnameAsFQDN", Free),
        ("subdomain", Free),
        ("terminationGracePeriodSeconds", grace),
        ("tolerations", Typed(placement)),
        ("topologySpreadConstraints", Free),
        (
            "volumes",
            Items {
                key: "name",
                own: |_| &OWN,
                added: any,
            },
        ),
        (
            "shareProcessNamespace",
            Refused("the other containers could read the private keys of Contour and Envoy"),
        ),
    ]
}

/// Returns the rule for a container of Slipway's.
fn container(name: &str) -> &'static Rule {
    match name {
        "contour" => &CONTOUR_CONTAINER,
        "envoy" => &ENVOY_CONTAINER,
        _ => &HELPER,
    }
}

static OWN: Rule = Own;

static CONTOUR_CONTAINER: Rule = Fields(&fields_of_container(Typed("spec.contour.resources")));

static ENVOY_CONTAINER: Rule = Fields(&fields_of_container(Typed("spec.envoy.resources")));

/// The containers `bootstrap` and `shutdown-manager`.
static HELPER: Rule = Fields(&fields_of_container(Free));

const fn fields_of_container(resources: Rule) -> [(&'static str, Rule); 9] {
    [
        ("imagePullPolicy", Free),
        ("livenessProbe", PROBE),
        (
            "ports",
            Items {
                key: "containerPort",
                own: |_| &OWN,
                added: any,
            },
        ),
        ("readinessProbe", PROBE),
        ("resizePolicy", Free),
        ("resources", resources),
        ("startupProbe", PROBE),
        // The path is Slipway's: the kubelet mounts a file there, and could hide a file of the container.
        ("terminationMessagePolicy", Free),
        (
            "volumeMounts",
            Items {
                key: "mountPath",
                own: |_| &OWN,
                added: mounts::refused,
            },
        ),
    ]
}

/// The times and the counts of a probe, but not its handler.
const PROBE: Rule = Fields(&[
    ("failureThreshold", Free),
    ("initialDelaySeconds", Free),
    ("periodSeconds", Free),
    ("successThreshold", Free),
    ("terminationGracePeriodSeconds", Free),
    ("timeoutSeconds", Free),
]);

fn any(_: &serde_json::Value, _: &[serde_json::Value]) -> Option<String> {
    None
}
