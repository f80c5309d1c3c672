//! A tenant of the cluster: he may write what he likes in a namespace of his own, that nothing refers to, or in the service's. What he
//! makes looks like Slipway's, and what is written on it is to his advantage.

use serde_json::{Value, json};
use slipway::api::vocabulary::{FINALIZER, annotations, labels};
use slipway::plan::{Key, Kind, hash, hash_json};

use crate::api_server;
use crate::items::{Item, KeyId};
use crate::model::{Action, Change, Model, Step};
use crate::scopes::{ALICE, AUTH, OWNERS};
use crate::state::{State, spend};

/// The only ContourDeployment that he is after.
const OWNER: (&str, &str) = OWNERS[0];

/// The greatest number of a stand-in's that counts, and one that is greater.
const GREAT: u32 = 999_999;
const TOO_GREAT: u32 = 4_000_000;

/// What he makes. All of it has both labels, if nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Imitation {
    /// A pod that has captured a configuration which switches authorization off, under the name that its content hashes to.
    Pod,
    /// A pod that needs a stand-in which can't be made, because its name is none.
    PodInNeed,
    /// A ReplicaSet of the first pod's template.
    ReplicaSet,
    /// A Deployment of that template, with the name of Contour's.
    Deployment,
    /// The configuration that the first pod has captured; it says that Contour was rolled out to it.
    Configuration,
    /// The same content under a name that it does not hash to.
    UnprovedConfiguration,
    /// A stand-in whose name is made from what it remembers: great numbers, an withdrawal, a proof of another form.
    StandIn,
    /// The same with our finalizer, and numbers that are too great.
    HeldStandIn,
    /// The same with a finalizer of his own, that nobody takes away.
    StuckStandIn,
    /// The same, and its deletion is refused.
    GuardedStandIn,
    /// The same with our finalizer, and no label.
    UnlabelledStandIn,
    /// A stand-in without a name of our pattern.
    UnlikeStandIn,
    /// A blackhole with a way out.
    Blackhole,
    /// A ServiceAccount of Contour's name.
    ServiceAccount,
    /// The stand-in that follows when the service gets its timeout; it points elsewhere.
    NextStandIn,
    /// The blackhole of that, with a way out.
    NextBlackhole,
    /// A Service without labels in the place of that.
    NextName,
}

impl Imitation {
    /// Those that are made in a namespace that nothing refers to.
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

    /// Those that are made in the service's namespace.
    pub const BESIDE_THE_SERVICE: &'static [Self] = &[
        Self::Pod,
        Self::StandIn,
        Self::HeldStandIn,
        Self::UnlabelledStandIn,
        Self::NextStandIn,
        Self::NextBlackhole,
        Self::NextName,
    ];

    /// Those that stand where the next stand-in shall.
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

    /// The object.
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

/// A configuration that asks a stand-in, and switches that off.
fn open(stand_in: &str) -> Value {
    let reference = json!({"namespace": AUTH, "name": stand_in});
    json!({"globalExtAuth": {"extensionRef": reference, "failOpen": false, "authPolicy": {"disabled": true}}})
}

/// The name that a configuration of this content has.
pub fn configuration(spec: &Value) -> String {
    let (namespace, name) = OWNER;
    format!("{name}-{}", hash([namespace, name, hash_json(spec).as_str()]))
}

/// The name of a stand-in with these facts.
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
                Some(item) if Self::is_as_he_made_it(item) && !item.is_terminating() => {
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
            _ => unreachable!("not the tenant's"),
        }
    }

    /// Whether an object of one of his keys is still as he made it: the operator says on what it writes that it did.
    fn is_as_he_made_it(item: &Item) -> bool {
        item.object.annotation(annotations::APPLIED).is_none()
    }

    /// Whether an object in the service's namespace takes a name of ours and is nobody's.
    pub fn is_in_the_way(&self, item: &Item) -> bool {
        item.kind() == Kind::Service && item.owner.is_none() && item.key != self.keys.service
    }

    /// Whether an object in a namespace that nothing refers to looks as if an earlier plan had left it behind: it is the only thing
    /// there that the operator may touch, and all that it may do is to take it away.
    pub fn is_leftover(&self, item: &Item) -> bool {
        let key = self.items.key(item.key);
        let may_be_left = matches!(key.kind, Kind::ExtensionService | Kind::Service);
        let stand_ins = format!("{}-ext-auth-", OWNER.1);
        key.namespace == ALICE && may_be_left && key.name.starts_with(&stand_ins) && item.owner.is_some()
    }

    /// Whether something in the tenant's namespace refuses that this is deleted.
    pub fn is_guarded(&self, key: KeyId) -> bool {
        let guarded = Imitation::GuardedStandIn;
        let is_made = self.scope.imitations.contains(&guarded);
        is_made && *self.items.key(key) == guarded.key(self.scope.tenant_in)
    }
}
