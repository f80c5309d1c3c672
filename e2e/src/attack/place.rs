//! A ContourDeployment on which one attack is tried, or several that leave all as it is.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::forged::Victim;
use super::sight::{self, Sight};
use super::{Attack, Given, Outcome, rights};
use crate::lab::{Lab, Thing, players, specification};

/// A row, and what became of it.
#[derive(Debug)]
pub struct Row {
    /// The row.
    pub attack: Attack,
    /// What the attacker has made, and has not taken away.
    pub made: Vec<Thing>,
    /// What the attacker has made or changed.
    pub touched: Vec<Thing>,
    /// The words in which a policy refused it.
    pub refused: Option<String>,
}

/// The ContourDeployment.
#[derive(Debug)]
pub struct Place {
    /// Part of the names of its namespaces.
    pub name: String,
    /// What there is.
    pub given: Given,
    /// What is tried.
    pub rows: Vec<Row>,
    /// The target.
    pub victim: Victim,
    /// What was there before the attacks.
    pub before: Before,
}

/// What was there before the attacks.
#[derive(Debug, Default)]
pub struct Before {
    /// Our objects.
    pub ours: BTreeMap<String, Value>,
    /// The same, names of their content left out.
    pub likeness: BTreeMap<String, Value>,
    /// The status.
    pub status: Value,
}

/// Where each row is tried; each at a place of its own if they are to be told `apart`.
pub fn places(lab: &Lab, table: Vec<Attack>, is_guarded: bool, apart: bool) -> Vec<Place> {
    let mut places = Vec::<Place>::new();
    for attack in table {
        let is_alone = apart || !attack.outcome(is_guarded).leaves_all_as_it_is();
        // What it holds is not to be taken for the doing of others.
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
                before: Before::default(),
            }),
        }
    }
    places
}

fn victim(lab: &Lab, name: &str) -> Victim {
    let home = lab.name(name);
    Victim {
        auth: format!("{home}-auth"),
        // Nobody plays the kubelet there: pods stay pending. It comes before all others wherever namespaces are sorted.
        alice: format!("alice-{home}"),
        elsewhere: format!("elsewhere-{home}"),
        home,
        ..Victim::default()
    }
}

impl Place {
    /// What is to come of what is tried here.
    pub fn outcome(&self, is_guarded: bool) -> Outcome {
        let mut outcomes = self.rows.iter().map(|row| row.attack.outcome(is_guarded));
        let all_as_it_is = outcomes.clone().find(|outcome| *outcome == Outcome::Pruned);
        all_as_it_is.or_else(|| outcomes.next()).unwrap_or(Outcome::Nothing)
    }

    /// The namespaces, who may do what there, and the ContourDeployment, unless that is to come later.
    pub async fn make(&self, lab: &Lab) -> anyhow::Result<()> {
        let Victim { home, auth, alice, .. } = &self.victim;
        for namespace in [home, alice] {
            lab.make_namespace(namespace).await?;
        }
        if self.given != Given::Absent {
            lab.make_namespace(auth).await?;
            for row in &self.rows {
                for grant in rights::grants(row.attack.who, &self.victim) {
                    lab.apply(&grant).await?;
                }
            }
        }
        if matches!(self.given, Given::Available | Given::Edited) {
            players::auth_server(lab, auth).await?;
            lab.create(&players::extension_service(auth, "500ms")).await?;
        }
        if self.given != Given::NotYet {
            self.make_deployment(lab).await?;
        }
        Ok(())
    }

    /// The ContourDeployment, as small as can be.
    pub async fn make_deployment(&self, lab: &Lab) -> anyhow::Result<()> {
        let mut spec = specification(&self.victim.auth);
        spec["contour"] = json!({"deployment": {"replicas": 1}});
        spec["envoy"]["deployment"] = json!({"replicas": 1});
        lab.edge_in(&self.victim.home, &spec).await.map(drop)
    }

    /// Once it has settled: the last step to what is given.
    pub async fn finish(&self, lab: &Lab) -> anyhow::Result<()> {
        match self.given {
            Given::Edited => {
                let service = Thing::new("ExtensionService", &self.victim.auth, "auth");
                let later = json!({"spec": {"services": [{"name": "later", "port": 9001}]}});
                lab.patch(&service, &later).await
            }
            Given::Refused => {
                let unknown = json!({"spec": {"runtimeSettings": {"envoy": {"listener": {"useProxyProtokol": true}}}}});
                lab.patch(&self.deployment(), &unknown).await
            }
            _ => Ok(()),
        }
    }

    /// What there is to say against its being as it is given; nothing if it is.
    pub fn is_as_given(&self, sight: &Sight, is_finished: bool) -> String {
        let deployment = sight.deployment(&self.victim);
        let status = &deployment["status"];
        if status["observedGeneration"] != deployment["metadata"]["generation"] {
            return format!("{} is not observed", self.name);
        }
        let said = sight::said(status);
        let is = |condition: &str, value: &str| said["conditions"][condition][0] == value;
        let expected = match self.given {
            Given::Edited if is_finished => json!(["Invalid", "Enforced"]),
            Given::Available | Given::Edited => json!(["Available", "Enforced"]),
            _ => json!(["Missing", "Denied"]),
        };
        let is_settled = is("ContourAvailable", "True") && is("EnvoyAvailable", "True") && !is("Reconciling", "True");
        let is_refused = is("ConfigurationValid", "False");
        if is_settled
            && said["services"] == json!([expected])
            && is_refused == (is_finished && self.given == Given::Refused)
        {
            return String::new();
        }
        format!("{}: {said}", self.name)
    }

    /// The ContourDeployment.
    pub fn deployment(&self) -> Thing {
        Thing::new("ContourDeployment", &self.victim.home, "edge")
    }

    /// Takes in what there is before the attacks.
    pub fn remember(&mut self, sight: &Sight) -> anyhow::Result<()> {
        self.victim = sight.known(&self.victim);
        self.before = Before {
            ours: sight.ours(&self.victim),
            likeness: sight.likeness(&self.victim),
            status: sight.status(&self.victim),
        };
        if self.given == Given::NotYet {
            return Ok(());
        }
        // Otherwise no attack is one.
        let metadata = &self.victim.configuration["metadata"];
        let name = metadata["name"].as_str().context("a configuration")?;
        let made = self.victim.configuration_name(&self.victim.configuration["spec"], None);
        ensure!(
            name == made,
            "a ContourConfiguration is called {name}, the attackers say {made}"
        );
        let stand_in = self.victim.stand_in["metadata"]["name"]
            .as_str()
            .context("a stand-in")?;
        let facts = self.victim.stand_in["spec"]["timeoutPolicy"]["response"].as_str();
        let made = self.victim.stand_in_name(facts, 0);
        ensure!(
            stand_in == made,
            "a stand-in is called {stand_in}, the attackers say {made}"
        );
        Ok(())
    }

    /// Whether an object, as `kind namespace/name`, was made or changed by an attacker.
    pub fn is_touched(&self, name: &str) -> bool {
        let mut touched = self.rows.iter().flat_map(|row| &row.touched);
        touched.any(|thing| thing.to_string() == name)
    }
}
