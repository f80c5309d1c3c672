//! A ContourDeployment for one attack, or for several attacks without side effects.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::forged::Victim;
use super::snapshot::{self, Snapshot};
use super::{Attack, Initial, Outcome, rights};
use crate::lab::{Lab, Thing, players, specification};

/// A row with its results.
#[derive(Debug)]
pub struct Row {
    /// The row.
    pub attack: Attack,
    /// The objects that the attacker created and has not deleted.
    pub made: Vec<Thing>,
    /// The objects that the attacker created or changed.
    pub touched: Vec<Thing>,
    /// The message of the policy that rejected the attack.
    pub refused: Option<String>,
}

/// A ContourDeployment with its attacks.
#[derive(Debug)]
pub struct Place {
    /// A part of the names of its namespaces.
    pub name: String,
    /// The initial state.
    pub given: Initial,
    /// The attacks.
    pub rows: Vec<Row>,
    /// The victim.
    pub victim: Victim,
    /// The state before the attacks.
    pub before: StateBefore,
}

/// The state before the attacks.
#[derive(Debug, Default)]
pub struct StateBefore {
    /// Slipway's objects.
    pub ours: BTreeMap<String, Value>,
    /// The same objects without names that depend on content.
    pub likeness: BTreeMap<String, Value>,
    /// The status.
    pub status: Value,
}

/// Assigns a place to each row. With `apart`, each row has its own place.
pub fn places(lab: &Lab, table: Vec<Attack>, is_guarded: bool, apart: bool) -> Vec<Place> {
    let mut places = Vec::<Place>::new();
    for attack in table {
        let is_alone = apart || !attack.outcome(is_guarded).leaves_all_as_it_is();
        // An attack that may block deletions has its own place, so that the block is not attributed to other attacks.
        let name = if is_alone || attack.may_hold {
            attack.name.to_owned()
        } else {
            format!("{:?}", attack.given).to_lowercase()
        };
        let given = attack.given;
        let row = Row {
            attack,
            made: Vec::new(),
            touched: Vec::new(),
            refused: None,
        };
        match places.iter_mut().find(|place| place.name == name) {
            Some(place) => place.rows.push(row),
            None => places.push(Place {
                victim: victim(lab, &name),
                name,
                given,
                rows: vec![row],
                before: StateBefore::default(),
            }),
        }
    }
    places
}

fn victim(lab: &Lab, name: &str) -> Victim {
    let home = lab.name(name);
    Victim {
        auth: format!("{home}-auth"),
        // The namespace has no stand-in for the kubelet, so pods stay pending. Its name sorts before all other namespaces.
        alice: format!("alice-{home}"),
        elsewhere: format!("elsewhere-{home}"),
        home,
        ..Victim::default()
    }
}

impl Place {
    /// Returns the expected outcome of the attacks on this place.
    pub fn outcome(&self, is_guarded: bool) -> Outcome {
        let mut outcomes = self.rows.iter().map(|row| row.attack.outcome(is_guarded));
        let all_as_it_is = outcomes.clone().find(|outcome| *outcome == Outcome::Pruned);
        all_as_it_is.or_else(|| outcomes.next()).unwrap_or(Outcome::Nothing)
    }

    /// Creates the namespaces, the attackers' rights, and the ContourDeployment, unless it is created later.
    pub async fn create(&self, lab: &Lab) -> anyhow::Result<()> {
        let Victim { home, auth, alice, .. } = &self.victim;
        for namespace in [home, alice] {
            lab.create_namespace(namespace).await?;
        }
        if self.given != Initial::Absent {
            lab.create_namespace(auth).await?;
            for row in &self.rows {
                for grant in rights::grants(row.attack.who, &self.victim) {
                    lab.apply(&grant).await?;
                }
            }
        }
        if matches!(self.given, Initial::Available | Initial::Edited) {
            players::auth_server(lab, auth).await?;
            lab.create(&players::extension_service(auth, "500ms")).await?;
        }
        if self.given != Initial::NotYet {
            self.create_deployment(lab).await?;
        }
        Ok(())
    }

    /// Creates a ContourDeployment of minimal size.
    pub async fn create_deployment(&self, lab: &Lab) -> anyhow::Result<()> {
        let mut spec = specification(&self.victim.auth);
        spec["contour"] = json!({"deployment": {"replicas": 1}});
        spec["envoy"]["deployment"] = json!({"replicas": 1});
        lab.edge_in(&self.victim.home, &spec).await.map(drop)
    }

    /// Performs the last step to the initial state, after the ContourDeployment has settled.
    pub async fn finish(&self, lab: &Lab) -> anyhow::Result<()> {
        match self.given {
            Initial::Edited => {
                let service = Thing::new("ExtensionService", &self.victim.auth, "auth");
                let later = json!({"spec": {"services": [{"name": "later", "port": 9001}]}});
                lab.patch(&service, &later).await
            }
            Initial::Refused => {
                let unknown = json!({"spec": {"runtimeSettings": {"envoy": {"listener": {"useProxyProtokol": true}}}}});
                lab.patch(&self.deployment(), &unknown).await
            }
            _ => Ok(()),
        }
    }

    /// Returns a description of the difference from the initial state; empty if there is none.
    pub fn is_as_given(&self, snapshot: &Snapshot, is_finished: bool) -> String {
        let deployment = snapshot.deployment(&self.victim);
        let status = &deployment["status"];
        if status["observedGeneration"] != deployment["metadata"]["generation"] {
            return format!("{} is not observed", self.name);
        }
        let summary = snapshot::summary(status);
        let is = |condition: &str, value: &str| summary["conditions"][condition][0] == value;
        let expected = match self.given {
            Initial::Edited if is_finished => json!(["Invalid", "Enforced"]),
            Initial::Available | Initial::Edited => json!(["Available", "Enforced"]),
            _ => json!(["Missing", "Denied"]),
        };
        let is_settled = is("ContourAvailable", "True") && is("EnvoyAvailable", "True") && !is("Reconciling", "True");
        let is_refused = is("ConfigurationValid", "False");
        if is_settled
            && summary["services"] == json!([expected])
            && is_refused == (is_finished && self.given == Initial::Refused)
        {
            return String::new();
        }
        format!("{}: {summary}", self.name)
    }

    /// Returns the reference to the ContourDeployment.
    pub fn deployment(&self) -> Thing {
        Thing::new("ContourDeployment", &self.victim.home, "edge")
    }

    /// Records the state before the attacks.
    pub fn remember(&mut self, snapshot: &Snapshot) -> anyhow::Result<()> {
        self.victim = snapshot.known(&self.victim);
        self.before = StateBefore {
            ours: snapshot.ours(&self.victim),
            likeness: snapshot.likeness(&self.victim),
            status: snapshot.status(&self.victim),
        };
        if self.given == Initial::NotYet {
            return Ok(());
        }
        // Without the right names, the attacks would prove nothing.
        let metadata = &self.victim.configuration["metadata"];
        let name = metadata["name"].as_str().context("a configuration")?;
        let made = self.victim.configuration_name(&self.victim.configuration["spec"], None);
        ensure!(
            name == made,
            "the ContourConfiguration's name is {name}, but the attackers computed {made}"
        );
        let stand_in = self.victim.stand_in["metadata"]["name"]
            .as_str()
            .context("a stand-in")?;
        let facts = self.victim.stand_in["spec"]["timeoutPolicy"]["response"].as_str();
        let made = self.victim.stand_in_name(facts, 0);
        ensure!(
            stand_in == made,
            "the stand-in's name is {stand_in}, but the attackers computed {made}"
        );
        Ok(())
    }

    /// Reports whether an attacker created or changed an object, given as `kind namespace/name`.
    pub fn is_touched(&self, name: &str) -> bool {
        let mut touched = self.rows.iter().flat_map(|row| &row.touched);
        touched.any(|thing| thing.to_string() == name)
    }
}
