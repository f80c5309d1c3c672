//! The offline rendering: turns YAML documents into the objects that Slipway would write. The rendering contacts no cluster, so an object
//! that is not in the documents does not exist. The golden tests read their inputs with this module too.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use rcgen::KeyPair;
use serde::Deserialize;
use serde_json::Value;

use crate::api::ContourDeployment;
use crate::api::vocabulary::annotations;
use crate::issuer::issue_with;
use crate::plan::issuing::{Issued, Request};
use crate::plan::{
    Environment, Failure, FailureCause, Key, Kind, Object, Observed, Plan, Question, SettingsVerdict, Snapshot, Wave,
    Write, decode_deployment, plan,
};

/// The reason why documents can't be rendered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A document is not YAML.
    #[error("document {number} is not YAML: {source}")]
    Yaml {
        /// The document's number, counted from 1.
        number: usize,
        /// The parser's error.
        source: Box<serde_saphyr::Error>,
    },
    /// A document is not an object of a kind that Slipway reads.
    #[error("document {number}: {message}")]
    Document {
        /// The document's number, counted from 1.
        number: usize,
        /// A description of the error.
        message: String,
    },
    /// The documents have no ContourDeployment, or more than one.
    #[error("expected exactly one ContourDeployment, found {0}")]
    NotOne(usize),
    /// The result can't be written as YAML.
    #[error("cannot write the result as YAML: {0}")]
    Print(#[from] serde_saphyr::ser::Error),
}

/// Returns the output of `slipway render`: the objects that Slipway would write, in waves, and the status that it would report.
pub fn render(input: &str) -> Result<String, Error> {
    let (planned, observed) = answered(&observe(input)?);
    let mut planned = continued(planned, observed);
    planned.waves.iter_mut().for_each(withhold_secrets);
    Ok(serde_saphyr::to_string(&planned)?)
}

/// Completes a plan that ends with the creation of a ContourConfiguration. Such a plan ends there because later objects refer to the
/// ContourConfiguration's uid. The rendering sets a placeholder for that uid and plans again.
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
        observed.objects.insert(object.key(), Arc::new(object));
    }
    let rest = plan(&observed);
    let rest_of_waves = rest.waves.into_iter().skip(planned.waves.len());
    planned.waves.extend(rest_of_waves);
    Plan {
        waves: planned.waves,
        ..rest
    }
}

/// The placeholder uid of objects that do not exist yet.
const NO_UID: &str = "00000000-0000-0000-0000-000000000000";

/// The text that replaces certificates and keys in the output.
const WITHHELD: &str = "(issued when applied)";

/// Replaces certificates and keys with a text. They are placeholders, which must not be used.
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

/// Returns the plan after its questions are answered, and the observation with the answers. The API server accepts all settings,
/// and certificates are issued (as placeholders).
pub fn answered(observed: &Observed) -> (Plan, Observed) {
    let mut observed = observed.clone();
    let mut planned = plan(&observed);
    for _ in 0..2 {
        for question in &planned.questions {
            match question {
                Question::Settings { hash, candidate, .. } => {
                    observed.settings = SettingsVerdict::of(hash, candidate, candidate);
                }
                Question::Certificates(request) => observed.issued = placeholders(request, observed.now),
            }
        }
        planned = plan(&observed);
    }
    (planned, observed)
}

/// Issues certificates as the operator does, but with the same keys each time. The plan parses the certificates, so they must be valid.
fn placeholders(request: &Request, now: Timestamp) -> Option<Issued> {
    let mut keys = 0_u8;
    let key = || {
        keys += 1;
        // An Ed25519 key (RFC 8410, section 7). Ed25519 signatures need no randomness.
        let mut der = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20".to_vec();
        der.extend([keys; 32]);
        KeyPair::try_from(der)
    };
    issue_with(request, now, key).ok()
}

/// Parses documents into an observation.
///
/// A document of kind `Observation` sets facts that no object states: `now`, `missingCRDs`, `refused` (the API server's message if it
/// refuses the settings) and `failures` (writes that failed). The namespaces of the documents exist. Every other namespace needs a
/// document of its own.
pub fn observe(input: &str) -> Result<Observed, Error> {
    let mut facts = ClusterFacts::default();
    let mut deployments = Vec::new();
    let mut objects = BTreeMap::new();
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
            return Err(wrong(format!("Slipway does not read kind {kind:?}")));
        };
        let object = Object::from_json(kind, value).map_err(|error| wrong(error.to_string()))?;
        if kind == Kind::ContourDeployment {
            deployments.push(decode_deployment(&object).map_err(|error| wrong(error.to_string()))?);
        } else {
            objects.insert(object.key(), object);
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

fn observed(mut deployment: ContourDeployment, mut objects: BTreeMap<Key, Object>, facts: ClusterFacts) -> Observed {
    let metadata = &mut deployment.metadata;
    let own_namespace = metadata.namespace.get_or_insert_with(|| "default".to_owned()).clone();
    metadata.uid.get_or_insert_with(|| NO_UID.to_owned());
    metadata.generation.get_or_insert(1);
    let keys = objects.keys().filter(|key| key.kind.is_namespaced());
    let namespaces: Vec<String> = keys.map(|key| key.namespace.clone()).collect();
    for name in namespaces.into_iter().chain([own_namespace]) {
        let key = Key::new(Kind::Namespace, "", &name);
        objects.entry(key).or_insert_with(|| {
            Object::of(&Namespace {
                metadata: ObjectMeta {
                    name: Some(name),
                    ..ObjectMeta::default()
                },
                ..Namespace::default()
            })
        });
    }
    let mut snapshot = Snapshot {
        objects: &objects,
        unchanged_since: &BTreeMap::new(),
        environment: Environment {
            missing_crds: facts.missing_crds,
            ..Environment::at(facts.now.unwrap_or(Timestamp::UNIX_EPOCH))
        },
    };
    let mut observed = Observed::of(&mut snapshot, deployment);
    observed.failures = facts.failures.into_iter().map(Failure::from).collect();
    if let Some(message) = facts.refused
        && let Some(hash) = settings_question(&plan(&observed))
    {
        observed.settings = SettingsVerdict::Refused { hash, message };
    }
    observed
}

/// Returns the hash of the settings that the plan wants the API server to check, or None if the plan asks no such question.
fn settings_question(planned: &Plan) -> Option<String> {
    planned.questions.iter().find_map(|question| match question {
        Question::Settings { hash, .. } => Some(hash.clone()),
        Question::Certificates(_) => None,
    })
}

/// Returns the documents of a YAML stream, without empty documents.
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
