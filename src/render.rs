//! Offline: from YAML documents to what would be made of them. No cluster is asked, so everything that is not in the
//! documents does not exist. The golden tests read their inputs with it, too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use rcgen::KeyPair;
use serde::Deserialize;
use serde_json::Value;

use crate::api::ContourDeployment;
use crate::api::contour::ExtensionService;
use crate::api::vocabulary::annotations;
use crate::issuer::issue_with;
use crate::plan::issuing::{Issued, Request};
use crate::plan::{
    Failure, FailureCause, Key, Kind, NamespacePhase, NamespacedName, Object, Observed, Plan, Question,
    ServiceAccountRef, SettingsVerdict, Wave, Write, has_ready_endpoint, plan,
};

/// Why documents can't be rendered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A document is not YAML.
    #[error("document {number} is not YAML: {source}")]
    Yaml {
        /// Counted from 1.
        number: usize,
        /// What the parser says.
        source: Box<serde_saphyr::Error>,
    },
    /// A document is not an object of a kind that matters here.
    #[error("document {number}: {message}")]
    Document {
        /// Counted from 1.
        number: usize,
        /// What is wrong.
        message: String,
    },
    /// Which ContourDeployment?
    #[error("expected exactly one ContourDeployment, found {0}")]
    NotOne(usize),
    /// The result has no text.
    #[error("could not print: {0}")]
    Print(#[from] serde_saphyr::ser::Error),
}

/// What `slipway render` prints: everything that would be made, in waves, and the status that would be reported.
pub fn render(input: &str) -> Result<String, Error> {
    let (planned, observed) = answered(&observe(input)?);
    let mut planned = continued(planned, observed);
    planned.waves.iter_mut().for_each(withhold_secrets);
    Ok(serde_saphyr::to_string(&planned)?)
}

/// A plan may end with the creation of a ContourConfiguration, because what comes after it names its uid. Here it gets a placeholder.
fn continued(mut planned: Plan, mut observed: Observed) -> Plan {
    let ends_with = planned.waves.last().into_iter().flat_map(|wave| &wave.writes);
    let created: Vec<_> = ends_with
        .filter_map(|write| match write {
            Write::Create(object) if object.kind == Kind::ContourConfiguration => Some(object.clone()),
            _ => None,
        })
        .collect();
    if created.is_empty() {
        return planned;
    }
    for mut object in created {
        object.metadata.uid = Some(NO_UID.to_owned());
        object.metadata.generation = Some(1);
        place(&mut observed, object);
    }
    let rest = plan(&observed);
    let rest_of_waves = rest.waves.into_iter().skip(planned.waves.len());
    planned.waves.extend(rest_of_waves);
    Plan {
        waves: planned.waves,
        ..rest
    }
}

/// The uid of what does not exist yet.
const NO_UID: &str = "00000000-0000-0000-0000-000000000000";

/// Stands in the place of certificates and keys.
const WITHHELD: &str = "(made when it is applied)";

/// The certificates are made up; nobody shall take them for something to use.
fn withhold_secrets(wave: &mut Wave) {
    for write in &mut wave.writes {
        if let Write::Create(object) | Write::Apply { object, .. } | Write::Replace(object) = write
            && object.kind == Kind::Secret
            && let Some(Value::Object(data)) = object.content.get_mut("data")
        {
            data.values_mut().for_each(|value| *value = WITHHELD.into());
            object.annotate(annotations::APPLIED, WITHHELD.to_owned());
        }
    }
}

/// The plan, with the questions answered as a willing cluster would: it takes every setting, and certificates are issued
/// (they are placeholders).
pub fn answered(observed: &Observed) -> (Plan, Observed) {
    let mut observed = observed.clone();
    let mut planned = plan(&observed);
    for _ in 0..2 {
        for question in &planned.questions {
            match question {
                Question::Settings { hash, candidate } => {
                    observed.settings = SettingsVerdict::of(hash, candidate, candidate);
                }
                Question::Certificates(request) => observed.issued = placeholders(request, observed.now),
            }
        }
        planned = plan(&observed);
    }
    (planned, observed)
}

/// Certificates like those that the operator issues, of keys that are the same each time: the plan reads what is in them.
fn placeholders(request: &Request, now: Timestamp) -> Option<Issued> {
    let mut keys = 0_u8;
    let key = || {
        keys += 1;
        // RFC 8410, section 7: an Ed25519 key. Its signatures need no randomness.
        let mut der = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20".to_vec();
        der.extend([keys; 32]);
        KeyPair::try_from(der)
    };
    issue_with(request, now, key).ok()
}

/// Reads documents as what is observed.
///
/// A document of kind `Observation` sets what no object says: `now`, `missingCRDs`, `refused` (the API server's words on the
/// settings), `failures` (writes that could not be done). Namespaces that documents are in exist; others need a document of their own.
pub fn observe(input: &str) -> Result<Observed, Error> {
    let mut facts = ClusterFacts::default();
    let mut deployments = Vec::new();
    let mut objects = Vec::new();
    for (index, text) in documents(input).enumerate() {
        let number = index + 1;
        let value: Value = serde_saphyr::from_str(text).map_err(|source| Error::Yaml {
            number,
            source: Box::new(source),
        })?;
        let wrong = |message: String| Error::Document { number, message };
        let kind = value["kind"].as_str().unwrap_or_default().to_owned();
        if kind == "Observation" {
            facts = serde_json::from_value(value).map_err(|error| wrong(error.to_string()))?;
            continue;
        }
        let Some(kind) = Kind::ALL.iter().copied().find(|known| known.name() == kind) else {
            return Err(wrong(format!("kind {kind:?} does not matter to Slipway")));
        };
        if kind == Kind::ContourDeployment {
            let deployment: ContourDeployment =
                serde_json::from_value(value).map_err(|error| wrong(error.to_string()))?;
            deployments.push(deployment);
        } else {
            objects.push(Object::from_json(kind, value).map_err(|error| wrong(error.to_string()))?);
        }
    }
    let count = deployments.len();
    let [deployment] = <[ContourDeployment; 1]>::try_from(deployments).map_err(|_| Error::NotOne(count))?;
    Ok(observed(deployment, objects, facts))
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClusterFacts {
    now: Option<Timestamp>,
    #[serde(rename = "missingCRDs")]
    missing_crds: Vec<String>,
    refused: Option<String>,
    failures: Vec<FailedWrite>,
}

#[derive(Deserialize)]
struct FailedWrite {
    kind: Kind,
    #[serde(default)]
    namespace: String,
    name: String,
    cause: FailureCause,
    message: String,
}

impl From<FailedWrite> for Failure {
    fn from(failed: FailedWrite) -> Self {
        let key = Key::new(failed.kind, &failed.namespace, &failed.name);
        Self {
            key,
            cause: failed.cause,
            message: failed.message,
        }
    }
}

fn observed(mut deployment: ContourDeployment, objects: Vec<Object>, facts: ClusterFacts) -> Observed {
    let metadata = &mut deployment.metadata;
    metadata.namespace.get_or_insert_with(|| "default".to_owned());
    metadata.uid.get_or_insert_with(|| NO_UID.to_owned());
    metadata.generation.get_or_insert(1);
    let mut observed = Observed {
        now: facts.now.unwrap_or(Timestamp::UNIX_EPOCH),
        operator: ServiceAccountRef {
            namespace: "slipway-system".to_owned(),
            name: "slipway".to_owned(),
        },
        objects: BTreeMap::new(),
        namespaces: BTreeMap::from([(metadata.namespace.clone().unwrap_or_default(), NamespacePhase::Active)]),
        missing_crds: facts.missing_crds,
        admission_problems: Vec::new(),
        extension_services: BTreeMap::new(),
        unchanged_since: BTreeMap::new(),
        services: BTreeMap::new(),
        ready_services: BTreeSet::new(),
        references_synced: true,
        secrets_synced: true,
        settings: SettingsVerdict::Unchecked,
        issued: None,
        failures: facts.failures.into_iter().map(Failure::from).collect(),
        attempts: Arc::default(),
        deployment: Arc::new(deployment),
    };
    for object in objects {
        place(&mut observed, object);
    }
    if let Some(message) = facts.refused
        && let Some(hash) = settings_question(&plan(&observed))
    {
        observed.settings = SettingsVerdict::Refused { hash, message };
    }
    observed
}

/// The hash of the settings that the API server is to be asked about.
fn settings_question(planned: &Plan) -> Option<String> {
    planned.questions.iter().find_map(|question| match question {
        Question::Settings { hash, .. } => Some(hash.clone()),
        Question::Certificates(_) => None,
    })
}

/// Puts an object where the controller's gather step would put it.
fn place(observed: &mut Observed, object: Object) {
    let id = object.id();
    let ours = observed.owner().owns(&object);
    if object.kind != Kind::Namespace && object.kind.is_namespaced() {
        observed
            .namespaces
            .entry(id.namespace.clone())
            .or_insert(NamespacePhase::Active);
    }
    match object.kind {
        Kind::Namespace => {
            let phase = if object.is_terminating() {
                NamespacePhase::Terminating
            } else {
                NamespacePhase::Active
            };
            observed.namespaces.insert(id.name, phase);
        }
        Kind::ExtensionService if !ours => {
            if let Ok(service) = object.parse::<ExtensionService>() {
                observed.extension_services.insert(id, Arc::new(service));
            }
        }
        Kind::EndpointSlice => {
            if let Some(service) = object.label("kubernetes.io/service-name")
                && has_ready_endpoint(&object)
            {
                observed
                    .ready_services
                    .insert(NamespacedName::new(id.namespace, service));
            }
        }
        Kind::Service => {
            let object = Arc::new(object);
            observed.services.insert(id, object.clone());
            if ours {
                observed.objects.insert(object.key(), object);
            }
        }
        _ if ours => {
            observed.objects.insert(object.key(), Arc::new(object));
        }
        _ => {}
    }
}

/// The documents of a YAML stream, without the empty ones.
fn documents(input: &str) -> impl Iterator<Item = &str> {
    let is_empty = |text: &&str| {
        text.lines()
            .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
    };
    input
        .split("\n---")
        .map(|text| text.strip_prefix("---").unwrap_or(text))
        .filter(move |text| !is_empty(text))
}
