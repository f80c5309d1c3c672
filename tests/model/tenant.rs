//! A tenant of the cluster. The tenant may write anything in a namespace of the tenant's own, which nothing references, or in the
//! service's namespace. The tenant's objects look like Slipway's objects, with content that benefits the tenant.

use serde_json::{Value, json};
use slipway::api::vocabulary::{FINALIZER, annotations, labels};
use slipway::plan::{Key, Kind, hash, hash_json};

use crate::api_server;
use crate::items::{Item, KeyId};
use crate::model::{Action, Change, Model, Step};
use crate::scopes::{ALICE, AUTH, OWNERS};
use crate::state::{State, spend};

/// The only ContourDeployment that the tenant attacks.
const OWNER: (&str, &str) = OWNERS[0];

/// The greatest valid number in the persisted state of a stand-in, and a greater number.
const GREAT: u32 = 999_999;
const TOO_GREAT: u32 = 4_000_000;

/// The objects that the tenant creates. All of them have both labels unless the variant says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Imitation {
    /// A pod with startup inputs that name a configuration without authorization. The name of the configuration matches the hash
    /// of its content.
    Pod,
    /// A pod that needs a stand-in that Slipway cannot create, because the name of the stand-in is invalid.
    PodInNeed,
    /// A ReplicaSet with the first pod's template.
    ReplicaSet,
    /// A Deployment with that template and the name of Contour's Deployment.
    Deployment,
    /// The configuration that the first pod has read, with a mark that Contour was rolled out to the configuration.
    Configuration,
    /// The same content under a name that does not match the hash.
    UnprovedConfiguration,
    /// A stand-in with a name that matches its persisted state: great numbers, a withdrawal, a proof of another spec.
    StandIn,
    /// The same stand-in with Slipway's finalizer and numbers that are too great.
    HeldStandIn,
    /// The same stand-in with a finalizer of the tenant, which no controller removes.
    StuckStandIn,
    /// The same stand-in. The API server refuses its deletion.
    GuardedStandIn,
    /// The same stand-in with Slipway's finalizer and without labels.
    UnlabelledStandIn,
    /// A stand-in with a name that does not match Slipway's pattern.
    UnlikeStandIn,
    /// A blackhole with a selector, so that it may have endpoints.
    Blackhole,
    /// A ServiceAccount with the name of Contour's ServiceAccount.
    ServiceAccount,
    /// The stand-in that Slipway plans when the service gets its timeout, with another target.
    NextStandIn,
    /// The blackhole of that stand-in, with a selector.
    NextBlackhole,
    /// A Service without labels under the name of that blackhole.
    NextName,
}

impl Imitation {
    /// The imitations in an unreferenced namespace.
    pub const ELSEWHERE: &'static [Self] = &[
        Self::Pod,
        Self::PodInNeed,
        Self::ReplicaSet,
        Self::Deployment,
        Self::Configuration,
        Self::UnprovedConfiguration,
        Self::StandIn,
        Self::HeldStandIn,
        Self::StuckStandIn,
        Self::GuardedStandIn,
        Self::UnlabelledStandIn,
        Self::UnlikeStandIn,
        Self::Blackhole,
        Self::ServiceAccount,
    ];

    /// The imitations in the service's namespace.
    pub const BESIDE_THE_SERVICE: &'static [Self] = &[
        Self::Pod,
        Self::StandIn,
        Self::HeldStandIn,
        Self::UnlabelledStandIn,
        Self::NextStandIn,
        Self::NextBlackhole,
        Self::NextName,
    ];

    /// The imitations that occupy the names of the next stand-in and its blackhole.
    pub const NEXT: &'static [Self] = &[Self::NextStandIn, Self::NextBlackhole, Self::NextName];

    fn kind(self) -> Kind {
        match self {
            Self::Pod | Self::PodInNeed => Kind::Pod,
            Self::ReplicaSet => Kind::ReplicaSet,
            Self::Deployment => Kind::Deployment,
            Self::Configuration | Self::UnprovedConfiguration => Kind::ContourConfiguration,
            Self::Blackhole | Self::NextBlackhole | Self::NextName => Kind::Service,
            Self::ServiceAccount => Kind::ServiceAccount,
            Self::StandIn
            | Self::HeldStandIn
            | Self::StuckStandIn
            | Self::GuardedStandIn
            | Self::UnlabelledStandIn
            | Self::UnlikeStandIn
            | Self::NextStandIn => Kind::ExtensionService,
        }
    }

    fn name(self) -> String {
        match self {
            Self::Pod => "pod".to_owned(),
            Self::PodInNeed => "pod-in-need".to_owned(),
            Self::ReplicaSet => "set".to_owned(),
            Self::Deployment | Self::ServiceAccount => format!("{}-contour", OWNER.1),
            Self::Configuration => configuration(&open(&stand_in(None, 0))),
            Self::UnprovedConfiguration => format!("{}-0000000000", OWNER.1),
            Self::StandIn => stand_in(None, GREAT),
            Self::HeldStandIn => stand_in(None, TOO_GREAT),
            Self::StuckStandIn => stand_in(None, GREAT - 1),
            Self::GuardedStandIn => stand_in(None, GREAT - 2),
            Self::UnlabelledStandIn => stand_in(None, GREAT - 3),
            Self::UnlikeStandIn => "other".to_owned(),
            Self::Blackhole => stand_in(None, GREAT - 4),
            Self::NextStandIn | Self::NextBlackhole | Self::NextName => stand_in(Some("500ms"), 0),
        }
    }

    pub fn key(self, namespace: &str) -> Key {
        Key::new(self.kind(), namespace, &self.name())
    }

    /// Returns the object.
    fn object(self, namespace: &str) -> Value {
        let mut metadata = json!({
            "namespace": namespace, "name": self.name(),
            "labels": {
                labels::OWNER_NAMESPACE: OWNER.0, labels::OWNER_NAME: OWNER.1, labels::ROLE: "ext-auth",
            },
        });
        if matches!(self.kind(), Kind::Pod | Kind::ReplicaSet | Kind::Deployment) {
            metadata["labels"][labels::COMPONENT] = json!("contour");
        }
        let captured = |stand_in: &str| {
            let spec = open(stand_in);
            let captured = json!({
                "configuration": configuration(&spec), "spec": spec, "standIns": [format!("{AUTH}/{stand_in}")],
            });
            json!({annotations::STARTUP_INPUTS: captured.to_string()})
        };
        let evil = json!({"protocol": "h2c", "services": [{"name": "evil", "port": 9001}]});
        match self {
            Self::Pod => {
                metadata["annotations"] = captured(&stand_in(None, 0));
                json!({"metadata": metadata, "status": {"phase": "Running"}})
            }
            Self::PodInNeed => {
                metadata["annotations"] = captured(&format!("{}-ext-auth-BAD NAME", OWNER.1));
                json!({"metadata": metadata, "status": {"phase": "Pending"}})
            }
            Self::ReplicaSet | Self::Deployment => {
                let template = json!({
                    "labels": metadata["labels"], "annotations": captured(&stand_in(None, 0)),
                });
                let spec = json!({"replicas": 1, "template": {"metadata": template, "spec": null}});
                json!({"metadata": metadata, "spec": spec, "status": {"availableReplicas": 1}})
            }
            Self::Configuration | Self::UnprovedConfiguration => {
                metadata["annotations"] = json!({annotations::ROLLED_OUT: "2030-01-01T00:00:00Z"});
                json!({"metadata": metadata, "spec": open(&stand_in(None, 0))})
            }
            Self::Blackhole | Self::NextBlackhole | Self::NextName => {
                if self == Self::NextName {
                    metadata["labels"] = json!({});
                }
                json!({"metadata": metadata, "spec": {"selector": {"app": "evil"}, "ports": [{"port": 9}]}})
            }
            Self::ServiceAccount => json!({"metadata": metadata}),
            Self::NextStandIn => {
                let memory = json!({"salt": 0, "pinned": {"response": "500ms"}, "reference": [AUTH, AUTH]});
                metadata["annotations"] = json!({annotations::PERSISTED_STATE: memory.to_string()});
                let mut spec = evil;
                spec["timeoutPolicy"] = json!({"response": "500ms"});
                json!({"metadata": metadata, "spec": spec})
            }
            _ => {
                let (salt, moves) = match self {
                    Self::HeldStandIn => (TOO_GREAT, u32::MAX),
                    Self::StuckStandIn => (GREAT - 1, 1000),
                    Self::GuardedStandIn => (GREAT - 2, 1000),
                    Self::UnlabelledStandIn => (GREAT - 3, 1000),
                    _ => (GREAT, 1000),
                };
                let memory = json!({
                    "salt": salt, "moves": moves, "retired": true, "pinned": {}, "withdrawn": true, "reference": [AUTH, AUTH],
                    "proven": {"uid": "of-another", "generation": i64::MAX, "spec": evil},
                    "nudge": {"about": [], "step": u64::MAX, "odd": true},
                });
                metadata["annotations"] = json!({annotations::PERSISTED_STATE: memory.to_string()});
                match self {
                    Self::HeldStandIn => metadata["finalizers"] = json!([FINALIZER]),
                    Self::StuckStandIn => metadata["finalizers"] = json!(["alice.example/keep"]),
                    Self::UnlabelledStandIn => {
                        metadata["finalizers"] = json!([FINALIZER]);
                        metadata["labels"] = json!({});
                    }
                    _ => {}
                }
                json!({"metadata": metadata, "spec": evil})
            }
        }
    }
}

/// Returns a configuration that references a stand-in but disables authorization.
fn open(stand_in: &str) -> Value {
    let reference = json!({"namespace": AUTH, "name": stand_in});
    json!({"globalExtAuth": {"extensionRef": reference, "failOpen": false, "authPolicy": {"disabled": true}}})
}

/// Returns the name of a configuration with this content.
pub fn configuration(spec: &Value) -> String {
    let (namespace, name) = OWNER;
    format!("{name}-{}", hash([namespace, name, hash_json(spec).as_str()]))
}

/// Returns the name of a stand-in with these facts.
fn stand_in(response: Option<&str>, salt: u32) -> String {
    let (namespace, name) = OWNER;
    let response = response.map_or_else(|| "-".to_owned(), |response| format!("={response}"));
    let salt = salt.to_string();
    format!(
        "{name}-ext-auth-{}",
        hash([namespace, name, "ext-auth", &response, "-", &salt])
    )
}

impl Model {
    pub fn tenant_actions(&mut self, state: &State, actions: &mut Vec<Action>) {
        for index in 0..self.scope.imitations.len() {
            let number = u8::try_from(index).expect("few");
            match self.live(state, self.keys.imitations[index]) {
                None if state.budgets.tenant > 0 => actions.push(Action::TenantMakes(number)),
                Some(item) if Self::is_untouched(item) && !item.is_terminating() => {
                    actions.push(Action::TenantDeletes(number));
                }
                _ => {}
            }
        }
    }

    pub fn tenant_step(&mut self, step: &mut Step) {
        match step.action {
            Action::TenantMakes(number) => {
                step.name = "a tenant creates an imitation";
                spend(&mut step.to.budgets.tenant);
                let imitation = self.scope.imitations[usize::from(number)];
                let (key, place) = (self.keys.imitations[usize::from(number)], self.scope.tenant_in);
                let new = Change::Imitation(number);
                self.make(&mut step.to, key, new, 0, |_| imitation.object(place));
            }
            Action::TenantDeletes(number) => {
                step.name = "a tenant deletes an imitation";
                let key = self.keys.imitations[usize::from(number)];
                self.change(&mut step.to, key, Change::Deletion, api_server::deleted);
            }
            _ => unreachable!("not a step of the tenant"),
        }
    }

    /// Reports whether an imitation is unchanged. The operator's writes add an annotation.
    fn is_untouched(item: &Item) -> bool {
        item.object.annotation(annotations::APPLIED).is_none()
    }

    /// Reports whether a Service in the service's namespace occupies a name of Slipway and has no owner.
    pub fn is_in_the_way(&self, item: &Item) -> bool {
        item.kind() == Kind::Service && item.owner.is_none() && item.key != self.keys.service
    }

    /// Reports whether an object in an unreferenced namespace looks like a leftover of an earlier plan. The operator may only
    /// delete or release such an object, and no other object in that namespace.
    pub fn is_leftover(&self, item: &Item) -> bool {
        let key = self.items.key(item.key);
        let may_be_left = matches!(key.kind, Kind::ExtensionService | Kind::Service);
        let stand_ins = format!("{}-ext-auth-", OWNER.1);
        key.namespace == ALICE && may_be_left && key.name.starts_with(&stand_ins) && item.owner.is_some()
    }

    /// Reports whether the API server refuses the deletion of an object in the tenant's namespace.
    pub fn is_guarded(&self, key: KeyId) -> bool {
        let guarded = Imitation::GuardedStandIn;
        let is_made = self.scope.imitations.contains(&guarded);
        is_made && *self.items.key(key) == guarded.key(self.scope.tenant_in)
    }
}
