//! The scopes: parts of the model that are searched to their end. A scope defines which actors take which steps, and how often.

use serde_json::{Value, json};
use slipway::plan::Kind;

use crate::state::{Budgets, UNLIMITED};
use crate::tenant::Imitation;

/// The ContourDeployments, as namespace and name.
pub const OWNERS: [(&str, &str); 2] = [("projectcontour", "edge"), ("projectcontour", "rear")];

/// The namespace and the name of the user's ExtensionService and of its Service.
pub const AUTH: &str = "auth";

/// A tenant's namespace, which nothing references.
pub const ALICE: &str = "alice";

/// A spec of the user's ExtensionService.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The ExtensionService points at the Service.
    Plain,
    /// The same spec with a response timeout.
    Timeout,
    /// The ExtensionService points at a Service that does not exist.
    Invalid,
}

impl Form {
    pub const ALL: [Self; 3] = [Self::Plain, Self::Timeout, Self::Invalid];

    pub fn bit(self) -> u8 {
        1 << self as u8
    }

    pub fn spec(self) -> Value {
        let service = if self == Self::Invalid { "nowhere" } else { AUTH };
        let mut spec = json!({"protocol": "h2c", "services": [{"name": service, "port": 9001}]});
        if self == Self::Timeout {
            spec["timeoutPolicy"] = json!({"response": "500ms"});
        }
        spec
    }
}

/// A spec of the ContourDeployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Requests are denied while Envoy cannot reach the service.
    FailClosed,
    /// Requests pass while Envoy cannot reach the service.
    FailOpen,
    /// The spec has a field that the API server does not know.
    Refused,
    /// The spec has no external authorization.
    Nothing,
}

impl Wish {
    pub fn spec(self) -> Value {
        let auth = |open: bool| json!({"extensionRef": {"namespace": AUTH, "name": AUTH}, "failOpen": open});
        let settings = match self {
            Self::FailClosed => json!({"globalExtAuth": auth(false)}),
            Self::FailOpen => json!({"globalExtAuth": auth(true)}),
            Self::Refused => json!({"globalExtAuth": auth(false), "nonsense": true}),
            Self::Nothing => json!({}),
        };
        json!({"contour": {"deployment": {"replicas": 1}}, "runtimeSettings": settings})
    }
}

/// A change of Slipway's objects by another user, or a fault of Contour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Interference {
    /// Changes the timeout of a stand-in. Containers read the timeout at their start.
    AlterFacts,
    /// Points a stand-in at another Service.
    Redirect,
    /// Removes the persisted state from a stand-in.
    EraseMemory,
    /// Deletes a stand-in.
    DeleteStandIn,
    /// Deletes a blackhole.
    DeleteBlackhole,
    /// Removes the finalizer from a stand-in.
    StripFinalizer,
    /// Deletes a ContourConfiguration.
    DeleteConfiguration,
    /// Deletes a ContourConfiguration that no container reads, and creates an object of another user with the same name.
    TakeName,
    /// Alters a ContourConfiguration so that requests pass.
    AlterConfiguration,
    /// Another Contour in the cluster writes an invalid verdict on an ExtensionService, for its own reasons.
    JudgeInvalid,
    /// Contour's verdict on a deleted ExtensionService lands on the ExtensionService that the user created in its place.
    MisplaceVerdict,
    /// Contour's verdict is lost, because this Contour does not lead yet or cannot write. Contour considers the verdict written.
    LoseVerdict,
}

/// The state of the model before the first step of the search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Only the namespaces exist.
    Empty,
    /// Nothing exists, not even the user's namespace.
    WithoutNamespace,
    /// Everything exists and has settled. The ExtensionService is valid and enforced.
    Settled,
}

/// A part of the model.
#[derive(Clone, Debug)]
pub struct Scope {
    pub name: &'static str,
    pub what: &'static str,
    pub start: Start,
    /// The number of ContourDeployments.
    pub owners: usize,
    /// Kinds whose watches lag behind.
    pub lags: &'static [Kind],
    pub forms: &'static [Form],
    pub wishes: &'static [Wish],
    pub interference: &'static [Interference],
    pub budgets: Budgets,
    /// Whether answers to writes get lost.
    pub loses_answers: bool,
    /// The objects that a tenant creates.
    pub imitations: &'static [Imitation],
    /// The namespace in which a tenant creates objects. (Without a tenant the model does not record refusals in other
    /// namespaces.)
    pub tenant_in: &'static str,
}

/// Kinds of the objects that the user creates.
const THE_USERS: &[Kind] = &[
    Kind::ContourDeployment,
    Kind::Namespace,
    Kind::ExtensionService,
    Kind::Service,
];
/// Kinds of Contour's workload.
const WORKLOADS: &[Kind] = &[Kind::Deployment, Kind::ReplicaSet, Kind::Pod];
const FREE: Budgets = Budgets {
    kills: UNLIMITED,
    crashes: UNLIMITED,
    ..Budgets::NONE
};

impl Scope {
    const INSTALLATION: Self = Self {
        name: "installation",
        what: "namespace, Service, ExtensionService and ContourDeployment are created in any order",
        start: Start::WithoutNamespace,
        owners: 1,
        lags: THE_USERS,
        forms: &[Form::Plain],
        wishes: &[Wish::FailClosed],
        interference: &[],
        budgets: FREE,
        loses_answers: false,
        imitations: &[],
        tenant_in: ALICE,
    };
}

/// Returns the scope of this name.
pub fn named(name: &str) -> Scope {
    let found = all().into_iter().chain([smallest()]).find(|scope| scope.name == name);
    found.unwrap_or_else(|| panic!("no scope has the name {name:?}"))
}

/// Returns the scope that is small enough for every run of the tests.
fn smallest() -> Scope {
    Scope {
        name: "smallest",
        what: "the ExtensionService is created and deleted repeatedly",
        start: Start::Settled,
        lags: &[Kind::ExtensionService],
        budgets: Budgets {
            flaps: UNLIMITED,
            ..FREE
        },
        ..Scope::INSTALLATION
    }
}

/// Returns all scopes of `make prove-model`.
#[allow(clippy::too_many_lines)] // a table
pub fn all() -> Vec<Scope> {
    let base = Scope::INSTALLATION;
    vec![
        base.clone(),
        Scope {
            name: "start",
            what: "the same with an existing namespace; the watches of Contour's workload lag",
            start: Start::Empty,
            lags: WORKLOADS,
            ..base.clone()
        },
        Scope {
            name: "rollout",
            what: "Contour is rolled out once; the watches of its workload lag",
            start: Start::Settled,
            forms: &[Form::Plain, Form::Timeout],
            budgets: Budgets {
                changes: 1,
                ..Budgets::NONE
            },
            lags: WORKLOADS,
            ..base.clone()
        },
        Scope {
            name: "rollouts",
            what: "Contour is rolled out, and again before the first rollout is complete; the watches of its ReplicaSets and pods lag",
            start: Start::Settled,
            forms: &[Form::Plain, Form::Timeout],
            budgets: Budgets {
                changes: 2,
                ..Budgets::NONE
            },
            lags: &[Kind::ReplicaSet, Kind::Pod],
            ..base.clone()
        },
        Scope {
            name: "facts",
            what: "the ExtensionService gets another timeout, and then the former timeout again",
            start: Start::Settled,
            forms: &[Form::Plain, Form::Timeout],
            budgets: Budgets { changes: 2, ..FREE },
            lags: &[Kind::ExtensionService],
            ..base.clone()
        },
        Scope {
            name: "flapping",
            what: "the ExtensionService is created and deleted without limit; its Service is created at some time",
            start: Start::Empty,
            budgets: Budgets {
                flaps: UNLIMITED,
                ..FREE
            },
            lags: &[Kind::ExtensionService, Kind::Service, Kind::Pod],
            ..base.clone()
        },
        Scope {
            name: "services",
            what: "the Service is created and deleted without limit; the ExtensionService is created at some time",
            start: Start::Empty,
            budgets: Budgets {
                services: UNLIMITED,
                ..FREE
            },
            lags: &[Kind::ExtensionService, Kind::Service],
            ..base.clone()
        },
        Scope {
            name: "flapping together",
            what: "the ExtensionService and its Service are created and deleted without limit",
            start: Start::Empty,
            budgets: Budgets {
                flaps: UNLIMITED,
                services: UNLIMITED,
                ..FREE
            },
            lags: &[Kind::Service],
            ..base.clone()
        },
        Scope {
            name: "edits",
            what: "the ExtensionService gets another timeout, or becomes invalid",
            start: Start::Settled,
            forms: &Form::ALL,
            budgets: Budgets { changes: 2, ..FREE },
            lags: &[Kind::ExtensionService],
            ..base.clone()
        },
        Scope {
            name: "namespace",
            what: "the namespace is deleted and recreated",
            start: Start::Settled,
            budgets: Budgets { namespaces: 1, ..FREE },
            lags: &[Kind::Namespace, Kind::ExtensionService, Kind::Pod],
            ..base.clone()
        },
        Scope {
            name: "namespace deleted early",
            what: "the namespace is deleted during the installation and recreated; no ExtensionService exists",
            start: Start::Empty,
            forms: &[],
            budgets: Budgets {
                namespaces: 1,
                ..Budgets::NONE
            },
            lags: &[Kind::Namespace],
            ..base.clone()
        },
        Scope {
            name: "deletion",
            what: "the ContourDeployment is deleted, also during the installation, and recreated",
            start: Start::Empty,
            budgets: Budgets { deletions: 1, ..FREE },
            lags: &[Kind::ContourDeployment, Kind::ReplicaSet, Kind::Pod],
            ..base.clone()
        },
        Scope {
            name: "settings",
            what: "the spec is changed: failOpen, a refused field, no reference",
            start: Start::Settled,
            wishes: &[Wish::FailClosed, Wish::FailOpen, Wish::Refused, Wish::Nothing],
            budgets: Budgets {
                respecifications: 2,
                ..FREE
            },
            lags: &[Kind::ContourDeployment, Kind::Pod],
            ..base.clone()
        },
        Scope {
            name: "stand-ins",
            what: "another user alters and deletes stand-ins and blackholes",
            start: Start::Settled,
            interference: &[
                Interference::AlterFacts,
                Interference::Redirect,
                Interference::EraseMemory,
                Interference::DeleteStandIn,
                Interference::DeleteBlackhole,
                Interference::StripFinalizer,
            ],
            budgets: Budgets {
                foreign: 1,
                flaps: 1,
                ..FREE
            },
            lags: &[Kind::ExtensionService, Kind::Service, Kind::Pod],
            ..base.clone()
        },
        Scope {
            name: "configurations",
            what: "another user alters and deletes ContourConfigurations",
            start: Start::Settled,
            interference: &[Interference::AlterConfiguration, Interference::DeleteConfiguration],
            budgets: Budgets { foreign: 2, ..FREE },
            lags: &[Kind::ContourConfiguration, Kind::Pod],
            ..base.clone()
        },
        Scope {
            name: "altered during a rollout",
            what: "another user alters or deletes the old or the new ContourConfiguration during a rollout",
            start: Start::Settled,
            forms: &[Form::Plain, Form::Timeout],
            interference: &[Interference::AlterConfiguration, Interference::DeleteConfiguration],
            budgets: Budgets {
                changes: 1,
                foreign: 1,
                ..FREE
            },
            lags: &[Kind::ContourConfiguration],
            ..base.clone()
        },
        Scope {
            name: "names",
            what: "another user takes the name of an unused ContourConfiguration that Slipway is about to delete",
            start: Start::Settled,
            forms: &[Form::Plain, Form::Timeout],
            interference: &[Interference::TakeName],
            budgets: Budgets {
                changes: 1,
                foreign: 1,
                crashes: UNLIMITED,
                ..Budgets::NONE
            },
            lags: &[Kind::ContourConfiguration],
            ..base.clone()
        },
        Scope {
            name: "names again",
            what: "another user takes the name of a ContourConfiguration that is needed again",
            start: Start::Settled,
            forms: &[Form::Plain, Form::Timeout],
            interference: &[Interference::TakeName],
            budgets: Budgets {
                changes: 2,
                foreign: 1,
                ..Budgets::NONE
            },
            lags: &[],
            ..base.clone()
        },
        Scope {
            name: "verdicts",
            what: "another Contour writes invalid verdicts on any ExtensionService, for its own reasons",
            start: Start::Settled,
            interference: &[Interference::JudgeInvalid],
            budgets: Budgets {
                foreign: 2,
                services: 1,
                ..FREE
            },
            lags: &[Kind::ExtensionService, Kind::Service],
            ..base.clone()
        },
        Scope {
            name: "verdicts on another object",
            what: "Contour's verdict on a deleted ExtensionService lands on its successor and stays; the Service is deleted and recreated",
            start: Start::Settled,
            interference: &[Interference::MisplaceVerdict],
            budgets: Budgets {
                foreign: 1,
                flaps: 2,
                services: 1,
                ..FREE
            },
            lags: &[Kind::ExtensionService],
            ..base.clone()
        },
        Scope {
            name: "edits after a verdict on another object",
            what: "the same, and the ExtensionService is edited; no process is killed",
            start: Start::Settled,
            forms: &[Form::Plain, Form::Timeout],
            interference: &[Interference::MisplaceVerdict],
            budgets: Budgets {
                foreign: 1,
                flaps: 1,
                changes: 1,
                ..Budgets::NONE
            },
            lags: &[Kind::ExtensionService],
            ..base.clone()
        },
        Scope {
            name: "lost verdicts",
            what: "Contour's verdict on the ExtensionService or on its trial is lost",
            start: Start::Empty,
            interference: &[Interference::LoseVerdict, Interference::MisplaceVerdict],
            budgets: Budgets {
                foreign: 2,
                flaps: 1,
                ..FREE
            },
            lags: &[Kind::ExtensionService],
            ..base.clone()
        },
        Scope {
            name: "lost verdicts on edits",
            what: "the same for an edited ExtensionService; the operator is not killed",
            start: Start::Settled,
            forms: &[Form::Plain, Form::Timeout],
            interference: &[Interference::LoseVerdict],
            budgets: Budgets {
                foreign: 1,
                changes: 2,
                kills: UNLIMITED,
                ..Budgets::NONE
            },
            lags: &[Kind::ExtensionService],
            ..base.clone()
        },
        Scope {
            name: "lost answers",
            what: "answers to writes are lost during the installation",
            start: Start::Empty,
            lags: &[Kind::ExtensionService, Kind::ContourConfiguration, Kind::Deployment],
            loses_answers: true,
            ..base.clone()
        },
        Scope {
            name: "tenant",
            what: "a tenant creates imitations in an unreferenced namespace, while the spec is refused, or the ContourDeployment \
                   is deleted and recreated",
            start: Start::Settled,
            wishes: &[Wish::FailClosed, Wish::Refused],
            budgets: Budgets {
                respecifications: 1,
                deletions: 1,
                crashes: UNLIMITED,
                tenant: 2,
                ..Budgets::NONE
            },
            lags: &[Kind::ExtensionService],
            imitations: Imitation::ELSEWHERE,
            ..base.clone()
        },
        Scope {
            name: "tenant beside the service",
            what: "a tenant creates imitations in the service's namespace, while the ExtensionService gets another timeout",
            start: Start::Settled,
            forms: &[Form::Plain, Form::Timeout],
            budgets: Budgets {
                changes: 1,
                tenant: 1,
                ..Budgets::NONE
            },
            lags: &[],
            imitations: Imitation::BESIDE_THE_SERVICE,
            tenant_in: AUTH,
            ..base.clone()
        },
        Scope {
            name: "tenant beside the service, observed late",
            what: "a tenant creates imitations in the service's namespace; the operator is killed and observes them late",
            start: Start::Settled,
            budgets: Budgets {
                crashes: UNLIMITED,
                tenant: 1,
                ..Budgets::NONE
            },
            lags: &[Kind::ExtensionService],
            imitations: Imitation::BESIDE_THE_SERVICE,
            tenant_in: AUTH,
            ..base.clone()
        },
        Scope {
            name: "tenant who takes names",
            what: "a tenant takes the names of the next stand-in or its blackhole; the operator is killed and forgets refusals",
            start: Start::Settled,
            forms: &[Form::Plain, Form::Timeout],
            budgets: Budgets {
                changes: 1,
                crashes: UNLIMITED,
                tenant: 1,
                ..Budgets::NONE
            },
            lags: &[],
            imitations: Imitation::NEXT,
            tenant_in: AUTH,
            ..base.clone()
        },
        Scope {
            name: "two",
            what: "two ContourDeployments share one ExtensionService",
            start: Start::Empty,
            owners: 2,
            lags: &[Kind::ExtensionService],
            budgets: Budgets {
                deletions: 1,
                flaps: 1,
                kills: UNLIMITED,
                ..Budgets::NONE
            },
            ..base
        },
    ]
}
