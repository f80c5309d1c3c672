//! Objects that a tenant of the cluster creates: objects of every kind with Slipway's labels and names, and with content that
//! benefits the tenant. Objects in an unreferenced namespace must not influence the plan.

use arbitrary::{Arbitrary, Unstructured};
use serde_json::{Value, json};
use slipway::api::vocabulary::{FINALIZER, annotations, labels};
use slipway::plan::{Key, Kind, Object, Observed, Write, hash, hash_json};
use slipway::render::answered;

use crate::cluster::{NAME, NAMESPACE, key_of};

/// A namespace that nothing references.
pub const ALICE: &str = "alice";

/// The kinds of imitations. Important kinds occur several times.
const KINDS: [Kind; 18] = [
    Kind::ExtensionService,
    Kind::ExtensionService,
    Kind::ExtensionService,
    Kind::ExtensionService,
    Kind::Service,
    Kind::Service,
    Kind::Pod,
    Kind::Pod,
    Kind::ReplicaSet,
    Kind::Deployment,
    Kind::ContourConfiguration,
    Kind::ContourConfiguration,
    Kind::DaemonSet,
    Kind::ServiceAccount,
    Kind::Secret,
    Kind::RoleBinding,
    Kind::Lease,
    Kind::EndpointSlice,
];

/// Numbers as an annotation may contain them.
const NUMBERS: [&str; 12] = [
    "0",
    "1",
    "7",
    "999999",
    "1000000",
    "1000001",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "-1",
    "1e400",
];

/// An object that looks like one of Slipway's objects. The fields are small numbers, so that few bytes generate many imitations.
#[derive(Arbitrary, Clone, Copy)]
pub struct Imitation {
    kind: u8,
    name: u8,
    marks: u8,
    words: u8,
    numbers: u8,
}

impl std::fmt::Debug for Imitation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.object("…").to_string())
    }
}

impl Imitation {
    pub fn kind(self) -> Kind {
        KINDS[usize::from(self.kind) % KINDS.len()]
    }

    pub fn key(self, namespace: &str) -> Key {
        Key::new(self.kind(), namespace, &self.name())
    }

    fn number(self, which: u8) -> &'static str {
        NUMBERS[usize::from(self.numbers.wrapping_mul(which)) % NUMBERS.len()]
    }

    fn has(self, bit: u8) -> bool {
        self.words & 1 << bit != 0
    }

    fn name(self) -> String {
        let proved = |slug: &str| {
            let salt = self.number(1);
            format!("{NAME}-{slug}-{}", hash([NAMESPACE, NAME, slug, "-", "-", salt]))
        };
        match self.name % 9 {
            0 | 1 => proved("ext-auth"),
            2 => proved("rate-limit"),
            3 => format!("{NAME}-ext-auth-0000000000"),
            4 => format!("{NAME}-trial-0000000000"),
            5 => format!("{NAME}-contour"),
            6 => configuration(&self.settings()),
            7 => format!("{NAME}-envoy"),
            _ => "other".to_owned(),
        }
    }

    /// Returns the spec of a configuration that leaves requests unchecked.
    fn settings(self) -> Value {
        let namespace = if self.has(0) { ALICE } else { "auth" };
        let name = if self.has(1) {
            "ext-auth-BAD NAME"
        } else {
            "ext-auth-0000000000"
        };
        let reference = json!({"namespace": namespace, "name": format!("{NAME}-{name}")});
        json!({"globalExtAuth": {"extensionRef": reference, "failOpen": true, "authPolicy": {"disabled": true}}})
    }

    /// Returns startup inputs with a forged configuration. The name of the configuration either matches the hash of the content
    /// or not.
    fn startup_inputs(self) -> String {
        let spec = self.settings();
        let name = if self.has(2) {
            format!("{NAME}-0000000000")
        } else {
            configuration(&spec)
        };
        let generation = if self.has(3) { self.number(3) } else { "1" };
        let stand_ins = json!([format!("auth/{NAME}-ext-auth-BAD NAME"), "auth", "/"]);
        format!(
            r#"{{"configuration":"{name}","uid":"u","generation":{generation},"spec":{spec},"standIns":{stand_ins}}}"#
        )
    }

    fn memory(self) -> String {
        let [salt, moves, generation, step] = [1, 3, 5, 7].map(|which| self.number(which));
        let namespace = if self.has(4) { "auth" } else { ALICE };
        let spec = evil();
        format!(
            r#"{{"salt":{salt},"moves":{moves},"retired":{},"withdrawn":{},"pinned":{{}},"reference":["{namespace}","one"],
            "proven":{{"uid":"u-{namespace}","generation":{generation},"spec":{spec}}},
            "nudge":{{"about":[],"step":{step},"odd":true}}}}"#,
            self.has(5),
            self.has(6),
        )
    }

    pub fn object(self, namespace: &str) -> Value {
        let mut metadata = json!({"name": self.name(), "namespace": namespace});
        let marks = json!({
            labels::OWNER_NAME: NAME, labels::OWNER_NAMESPACE: NAMESPACE, labels::COMPONENT: "contour",
            labels::ROLE: "ext-auth", "app.kubernetes.io/managed-by": "slipway",
        });
        metadata["labels"] = match self.marks % 4 {
            0 | 1 => marks,
            2 => json!({labels::OWNER_NAME: NAME, labels::COMPONENT: "contour"}),
            _ => json!({}),
        };
        let mut finalizers = Vec::new();
        finalizers.extend((self.marks & 4 != 0).then_some(FINALIZER));
        // No user would ever remove this finalizer. Beside a service, the finalizer would block the deletion of the namespace.
        finalizers.extend((self.marks & 8 != 0 && namespace == ALICE).then_some("alice.example/keep"));
        metadata["finalizers"] = json!(finalizers);
        let captured = self.startup_inputs();
        let mut template =
            json!({"labels": metadata["labels"], "annotations": {annotations::STARTUP_INPUTS: captured}});
        template["labels"][labels::TEMPLATE] = "0000000000".into();
        let spec = match self.kind() {
            Kind::ExtensionService => {
                metadata["annotations"] = json!({annotations::PERSISTED_STATE: self.memory()});
                evil()
            }
            Kind::ContourConfiguration => {
                let rolled_out = if self.has(3) {
                    "2030-01-01T00:00:00Z"
                } else {
                    "9999-12-31T23:59:59Z"
                };
                metadata["annotations"] =
                    json!({annotations::ROLLED_OUT: rolled_out, annotations::IN_PLACE_OF: self.number(3)});
                self.settings()
            }
            Kind::Pod => {
                metadata["annotations"] = json!({annotations::STARTUP_INPUTS: captured});
                let phase = if self.has(7) { "Running" } else { "Pending" };
                return json!({"metadata": metadata, "spec": {}, "status": {"phase": phase}});
            }
            Kind::ReplicaSet | Kind::Deployment | Kind::DaemonSet => {
                json!({"replicas": 1, "template": {"metadata": template, "spec": {}}})
            }
            Kind::Service => json!({"selector": {"app": "evil"}, "ports": [{"port": 9}]}),
            _ => return json!({"metadata": metadata}),
        };
        json!({"metadata": metadata, "spec": spec})
    }
}

/// Returns the spec of an ExtensionService that Contour has not judged.
fn evil() -> Value {
    json!({"protocol": "h2c", "services": [{"name": "evil", "port": 9001}], "timeoutPolicy": {"response": "7s"}})
}

/// Returns the name of a configuration with this content.
fn configuration(spec: &Value) -> String {
    format!("{NAME}-{}", hash([NAMESPACE, NAME, hash_json(spec).as_str()]))
}

/// Generates imitations as documents, in any namespace.
pub fn documents(input: &mut Unstructured<'_>) -> arbitrary::Result<Vec<Value>> {
    let mut documents = Vec::new();
    for number in 0..input.int_in_range(0..=6)? {
        let namespace = *input.choose(&[ALICE, ALICE, "auth", "limits", NAMESPACE])?;
        let imitation = Imitation::arbitrary(input)?;
        let mut document = imitation.object(namespace);
        document["kind"] = imitation.kind().name().into();
        document["apiVersion"] = imitation.kind().api_version().into();
        document["metadata"]["uid"] = format!("u-imitation-{number}").into();
        document["metadata"]["generation"] = i64::arbitrary(input)?.into();
        if input.ratio(1_u8, 4_u8)? {
            let times = ["2026-11-23T01:19:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"];
            document["metadata"]["deletionTimestamp"] = (*input.choose(&times)?).into();
            document["metadata"]["creationTimestamp"] = (*input.choose(&times)?).into();
        }
        documents.push(document);
    }
    Ok(documents)
}

/// Checks the namespace of a write. Outside the namespace of the ContourDeployment, Slipway writes only stand-ins and blackholes,
/// by their names. In an unreferenced namespace, Slipway only deletes or releases objects with both labels.
pub fn check_place(write: &Write, observed: &Observed) {
    let (key, owner) = (key_of(write), observed.owner());
    if !owner.is_elsewhere(&key) {
        return;
    }
    let may_be_there = matches!(key.kind, Kind::ExtensionService | Kind::Service);
    assert!(
        may_be_there && owner.is_stand_in(&key.name),
        "{key} is not a stand-in or blackhole of Slipway"
    );
    if !is_referenced(observed, &key.namespace) {
        assert!(
            matches!(write, Write::Delete(_) | Write::Release(_)),
            "{key} is neither deleted nor released"
        );
        let live = observed.objects.get(&key).expect("the object was observed");
        assert!(owner.is_named_by(live), "{key} does not bear both labels");
    }
}

/// Checks that objects in an unreferenced namespace do not influence the plan. The plan without these objects must be the same,
/// except for deletions and releases of these objects, and for the release of the ContourDeployment, which waits for them.
pub fn check_influence(observed: &Observed) {
    let is_theirs = |key: &Key| key.namespace == ALICE;
    if is_referenced(observed, ALICE) || !observed.objects.keys().any(is_theirs) {
        return;
    }
    let mut without = observed.clone();
    without.objects.retain(|key, _| !is_theirs(key));
    without.services.retain(|id, _| id.namespace != ALICE);
    without.extension_services.retain(|id, _| id.namespace != ALICE);
    let written = |observed: &Observed| {
        let (plan, _) = answered(observed);
        let writes = plan.waves.iter().flat_map(|wave| wave.writes.clone());
        let (theirs, ours): (Vec<_>, Vec<_>) = writes.partition(|write| is_theirs(&key_of(write)));
        (theirs, ours, plan)
    };
    let (theirs, with, plan) = written(observed);
    let (_, mut expected, other) = written(&without);
    let is_deleted = observed.deployment.metadata.deletion_timestamp.is_some();
    if is_deleted && !theirs.is_empty() {
        expected.retain(|write| key_of(write).kind != Kind::ContourDeployment);
    }
    assert_eq!(with, expected, "objects in {ALICE} influence the plan");
    if theirs.is_empty() && !is_deleted {
        assert_eq!(plan.status, other.status, "objects in {ALICE} influence the status");
    }
}

/// Reports whether a configuration was forged in the ContourDeployment's own namespace.
pub fn is_of_home(configuration: &Object, observed: &Observed) -> bool {
    let bears_it = |text: String| text.replace('\\', "").contains("\"disabled\":true");
    let mut at_home = observed
        .objects
        .values()
        .filter(|object| object.namespace() == NAMESPACE);
    configuration.at("/spec").is_some_and(|spec| bears_it(spec.to_string()))
        && at_home.any(|object| bears_it(object.to_json().to_string()))
}

/// Reports whether the spec, or a template in the ContourDeployment's own namespace, contains the namespace. The author of the
/// template does not matter.
fn is_referenced(observed: &Observed, namespace: &str) -> bool {
    let settings = serde_json::to_string(&observed.deployment.spec.runtime_settings).expect("settings are JSON");
    let own = observed
        .objects
        .values()
        .filter(|object| object.namespace() == NAMESPACE);
    let templates = own.filter_map(|object| object.at("/spec/template").map(Value::to_string));
    let quoted = format!("\"{namespace}");
    templates
        .chain([settings])
        .any(|text| text.replace('\\', "").contains(&quoted))
}

/// Reports whether Slipway has never written the object.
pub fn is_untouched(object: &Object) -> bool {
    object.annotation(annotations::APPLIED).is_none()
}
