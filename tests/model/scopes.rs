//! The parts of the world that are searched, each to its end: who may do what in it, and how often.

use serde_json::{Value, json};
use slipway::plan::Kind;

use crate::state::{Budgets, UNLIMITED};
use crate::tenant::Imitation;

/// The ContourDeployments, as namespace and name.
pub const OWNERS: [(&str, &str); 2] = [("projectcontour", "edge"), ("projectcontour", "rear")];

/// Where the user's ExtensionService is, and what it and its Service are called.
pub const AUTH: &str = "auth";

/// A tenant's namespace, which nothing refers to.
pub const ALICE: &str = "alice";

/// A form of the user's ExtensionService.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// It points at the Service.
    Plain,
    /// The same, with a response timeout.
    Timeout,
    /// It points at a Service that does not exist.
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

/// A form of the ContourDeployment's spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Requests are denied while the service can't be asked.
    FailClosed,
    /// Requests pass.
    FailOpen,
    /// A field that the API server does not know.
    Refused,
    /// No external authorization.
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

/// What a foreigner does to objects of Slipway's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mischief {
    /// A stand-in gets another timeout, which containers capture.
    AlterFacts,
    /// A stand-in is pointed elsewhere.
    Redirect,
    /// What is remembered on a stand-in is gone.
    EraseMemory,
    /// A stand-in is deleted.
    DeleteStandIn,
    /// A blackhole is deleted.
    DeleteBlackhole,
    /// The finalizer of a stand-in is taken away.
    StripFinalizer,
    /// A ContourConfiguration is deleted.
    DeleteConfiguration,
    /// … one that no container reads, and an object of somebody else's takes its name.
    TakeName,
    /// A ContourConfiguration is altered: requests shall pass.
    AlterConfiguration,
    /// Another Contour in the cluster says of an ExtensionService that it is not valid, for reasons of its own.
    SayInvalid,
    /// Contour's verdict on an object that was deleted lands on the user's, which was made in its place.
    SayOfAnother,
    /// Contour's verdict is lost: it does not lead yet, or can't write it. It takes it for said.
    LoseWord,
}

/// Whether there is something before anybody does anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The namespaces only.
    Empty,
    /// Nothing, not even the user's namespace.
    WithoutNamespace,
    /// Everything, settled, the ExtensionService valid and enforced.
    Settled,
}

/// A part of the world.
#[derive(Clone, Debug)]
pub struct Scope {
    pub name: &'static str,
    pub what: &'static str,
    pub start: Start,
    /// How many ContourDeployments there are.
    pub owners: usize,
    /// Kinds whose watches lag behind.
    pub lags: &'static [Kind],
    pub forms: &'static [Form],
    pub wishes: &'static [Wish],
    pub mischief: &'static [Mischief],
    pub budgets: Budgets,
    /// Answers to writes get lost.
    pub loses_answers: bool,
    /// What a tenant makes,
    pub imitations: &'static [Imitation],
    /// and where. (Elsewhere what is refused in other namespaces is not remembered.)
    pub tenant_in: &'static str,
}

/// What the user makes.
const THE_USERS: &[Kind] = &[
    Kind::ContourDeployment,
    Kind::Namespace,
    Kind::ExtensionService,
    Kind::Service,
];
/// What Contour runs as.
const WORKLOADS: &[Kind] = &[Kind::Deployment, Kind::ReplicaSet, Kind::Pod];
const FREE: Budgets = Budgets {
    kills: UNLIMITED,
    crashes: UNLIMITED,
    ..Budgets::NONE
};

impl Scope {
    const INSTALLATION: Self = Self {
        name: "installation",
        what: "namespace, Service, ExtensionService and ContourDeployment come in any order",
        start: Start::WithoutNamespace,
        owners: 1,
        lags: THE_USERS,
        forms: &[Form::Plain],
        wishes: &[Wish::FailClosed],
        mischief: &[],
        budgets: FREE,
        loses_answers: false,
        imitations: &[],
        tenant_in: ALICE,
    };
}

/// The scope of this name.
pub fn named(name: &str) -> Scope {
    let found = all().into_iter().chain([smallest()]).find(|scope| scope.name == name);
    found.unwrap_or_else(|| panic!("no scope is called {name:?}"))
}

/// Small enough for every run of the tests.
fn smallest() -> Scope {
    Scope {
        name: "smallest",
        what: "the ExtensionService comes and goes",
        start: Start::Settled,
        lags: &[Kind::ExtensionService],
        budgets: Budgets {
            flaps: UNLIMITED,
            ..FREE
        },
        ..Scope::INSTALLATION
    }
}

/// All of them.
#[allow(clippy::too_many_lines)] // a table
pub fn all() -> Vec<Scope> {
    let base = Scope::INSTALLATION;
    vec![
        base.clone(),
        Scope {
            name: "start",
            what: "the same, once there is a namespace, and what is seen of Contour's workload is late",
            start: Start::Empty,
            lags: WORKLOADS,
            ..base.clone()
        },
        Scope {
            name: "rollout",
            what: "Contour is rolled once, and what is seen of its workload is late",
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
            what: "Contour is rolled, and rolled again before that is over; what is seen of its ReplicaSets and pods is late",
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
            what: "the ExtensionService gets another timeout, and the former one again",
            start: Start::Settled,
            forms: &[Form::Plain, Form::Timeout],
            budgets: Budgets { changes: 2, ..FREE },
            lags: &[Kind::ExtensionService],
            ..base.clone()
        },
        Scope {
            name: "flapping",
            what: "the ExtensionService comes and goes without end; its Service comes at some time",
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
            what: "the Service comes and goes without end; the ExtensionService comes at some time",
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
            what: "the ExtensionService and its Service come and go without end",
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
            what: "the ExtensionService gets another timeout, or is made invalid",
            start: Start::Settled,
            forms: &Form::ALL,
            budgets: Budgets { changes: 2, ..FREE },
            lags: &[Kind::ExtensionService],
            ..base.clone()
        },
        Scope {
            name: "namespace",
            what: "the namespace is deleted, and made again",
            start: Start::Settled,
            budgets: Budgets { namespaces: 1, ..FREE },
            lags: &[Kind::Namespace, Kind::ExtensionService, Kind::Pod],
            ..base.clone()
        },
        Scope {
            name: "namespace that goes early",
            what: "the namespace is deleted while everything is installed, and made again; there is no ExtensionService",
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
            what: "the ContourDeployment is deleted, also while it is being installed, and made again",
            start: Start::Empty,
            budgets: Budgets { deletions: 1, ..FREE },
            lags: &[Kind::ContourDeployment, Kind::ReplicaSet, Kind::Pod],
            ..base.clone()
        },
        Scope {
            name: "settings",
            what: "the specification is changed: failOpen, a refused field, no reference",
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
            what: "a foreigner alters and deletes stand-ins and blackholes",
            start: Start::Settled,
            mischief: &[
                Mischief::AlterFacts,
                Mischief::Redirect,
                Mischief::EraseMemory,
                Mischief::DeleteStandIn,
                Mischief::DeleteBlackhole,
                Mischief::StripFinalizer,
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
            what: "a foreigner alters and deletes ContourConfigurations",
            start: Start::Settled,
            mischief: &[Mischief::AlterConfiguration, Mischief::DeleteConfiguration],
            budgets: Budgets { foreign: 2, ..FREE },
            lags: &[Kind::ContourConfiguration, Kind::Pod],
            ..base.clone()
        },
        Scope {
            name: "altered while rolled",
            what: "a foreigner alters or deletes one of the ContourConfigurations between which Contour is rolled",
            start: Start::Settled,
            forms: &[Form::Plain, Form::Timeout],
            mischief: &[Mischief::AlterConfiguration, Mischief::DeleteConfiguration],
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
            what: "a foreigner takes the name of a ContourConfiguration that nobody uses any more, while it is to be deleted",
            start: Start::Settled,
            forms: &[Form::Plain, Form::Timeout],
            mischief: &[Mischief::TakeName],
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
            what: "a foreigner takes the name of a ContourConfiguration that is needed again",
            start: Start::Settled,
            forms: &[Form::Plain, Form::Timeout],
            mischief: &[Mischief::TakeName],
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
            what: "another Contour says of any ExtensionService that it is not valid, for reasons of its own",
            start: Start::Settled,
            mischief: &[Mischief::SayInvalid],
            budgets: Budgets {
                foreign: 2,
                services: 1,
                ..FREE
            },
            lags: &[Kind::ExtensionService, Kind::Service],
            ..base.clone()
        },
        Scope {
            name: "verdicts on another",
            what: "Contour's verdict on a deleted ExtensionService lands on the one that was made in its place, and stays; the Service goes and comes",
            start: Start::Settled,
            mischief: &[Mischief::SayOfAnother],
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
            name: "edits of what another was judged for",
            what: "the same, and that is edited; nobody is killed",
            start: Start::Settled,
            forms: &[Form::Plain, Form::Timeout],
            mischief: &[Mischief::SayOfAnother],
            budgets: Budgets {
                foreign: 1,
                flaps: 2,
                changes: 1,
                ..Budgets::NONE
            },
            lags: &[Kind::ExtensionService],
            ..base.clone()
        },
        Scope {
            name: "lost words",
            what: "Contour's word on the ExtensionService, or on a trial of it, is lost",
            start: Start::Empty,
            mischief: &[Mischief::LoseWord, Mischief::SayOfAnother],
            budgets: Budgets {
                foreign: 2,
                flaps: 1,
                ..FREE
            },
            lags: &[Kind::ExtensionService],
            ..base.clone()
        },
        Scope {
            name: "lost words on edits",
            what: "the same, when it is edited; the operator is not killed",
            start: Start::Settled,
            forms: &[Form::Plain, Form::Timeout],
            mischief: &[Mischief::LoseWord],
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
            what: "answers to writes get lost while everything is installed",
            start: Start::Empty,
            lags: &[Kind::ExtensionService, Kind::ContourConfiguration, Kind::Deployment],
            loses_answers: true,
            ..base.clone()
        },
        Scope {
            name: "tenant",
            what: "a tenant makes imitations in a namespace that nothing refers to, while the specification is refused, or the ContourDeployment is \
                   deleted and made again",
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
            what: "a tenant makes imitations in the service's namespace, while the ExtensionService gets another timeout",
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
            name: "tenant beside the service, seen late",
            what: "a tenant makes imitations in the service's namespace; the operator is killed, and sees them late",
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
            what: "a tenant takes the names of the next stand-in or its blackhole; the operator is killed, and forgets what was refused",
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
