//! Every order in which the parts of an installation appear leads to the same final state.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use slipway::api::vocabulary::{annotations, labels};
use slipway::plan::{Key, Kind, Object};

use super::cluster::Cluster;
use super::scene::{asks_auth, points_at_with_timeout};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    Crds,
    Namespace,
    Service,
    ExtensionService,
    ContourDeployment,
}

use Piece::{ContourDeployment, Crds, ExtensionService, Namespace, Service};

/// Returns every order that the API server permits.
fn orders() -> Vec<Vec<Piece>> {
    let mut orders = vec![Vec::new()];
    for _ in 0..5 {
        let longer = orders.iter().flat_map(|order: &Vec<Piece>| {
            let rest = [Crds, Namespace, Service, ExtensionService, ContourDeployment];
            rest.into_iter()
                .filter(|piece| !order.contains(piece))
                .map(|piece| [&order[..], &[piece]].concat())
        });
        orders = longer.collect();
    }
    let before = |order: &[Piece], a: Piece, b: Piece| {
        order.iter().position(|piece| *piece == a) < order.iter().position(|piece| *piece == b)
    };
    orders.retain(|order| {
        before(order, Namespace, Service)
            && before(order, Namespace, ExtensionService)
            && before(order, Crds, ExtensionService)
    });
    orders
}

fn empty() -> Cluster {
    let mut cluster = Cluster::new();
    cluster.missing_crds = vec!["extensionservices.projectcontour.io".into()];
    cluster
}

fn add(cluster: &mut Cluster, piece: Piece) {
    match piece {
        Crds => cluster.missing_crds.clear(),
        Namespace => cluster.create_namespace("auth"),
        Service => cluster.create_service("auth", "auth"),
        ExtensionService => cluster.create_extension_service("auth", "auth", &points_at_with_timeout("auth", "500ms")),
        ContourDeployment => cluster.specify(asks_auth()),
    }
}

fn remove(cluster: &mut Cluster, piece: Piece) {
    match piece {
        Namespace => cluster.delete(Kind::Namespace, "", "auth"),
        Service => {
            cluster.delete(Kind::Service, "auth", "auth");
            cluster.delete(Kind::EndpointSlice, "auth", "auth-x");
        }
        ExtensionService => cluster.delete(Kind::ExtensionService, "auth", "auth"),
        Crds | ContourDeployment => unreachable!("no test deletes this piece"),
    }
}

/// Returns all objects without the parts that depend on the API server or on the history: uids, versions, times, and persisted
/// state.
fn end(cluster: &Cluster) -> BTreeMap<String, Value> {
    let shown = |object: &&Object| !matches!(object.kind, Kind::Pod | Kind::ReplicaSet);
    let masked = |object: &Object| {
        let mut object = object.clone();
        let metadata = &mut object.metadata;
        metadata.uid = None;
        metadata.resource_version = None;
        metadata.generation = None;
        metadata.creation_timestamp = None;
        metadata
            .owner_references
            .iter_mut()
            .flatten()
            .for_each(|owner| owner.uid.clear());
        metadata.annotations.iter_mut().for_each(|them| {
            them.retain(|key, _| {
                ![
                    annotations::PERSISTED_STATE,
                    annotations::APPLIED,
                    annotations::ROLLED_OUT,
                ]
                .contains(&key.as_str())
            });
        });
        if let Some(template) = object
            .content
            .get_mut("spec")
            .and_then(|spec| spec.pointer_mut("/template/metadata"))
            && let Some(text) = template["annotations"][annotations::STARTUP_INPUTS].as_str()
        {
            // The startup inputs identify one ContourConfiguration by its uid.
            let mut captured: Value = serde_json::from_str(text).expect("JSON");
            captured["uid"] = json!("");
            template["annotations"][annotations::STARTUP_INPUTS] = captured;
            template["labels"][labels::TEMPLATE] = json!("");
        }
        if object.kind == Kind::Secret {
            // Certificates contain times.
            object.content["data"]
                .as_object_mut()
                .expect("data")
                .values_mut()
                .for_each(|value| *value = Value::Null);
        }
        if object.kind == Kind::ContourDeployment {
            mask_times(object.content.get_mut("status").expect("a status"));
        } else {
            object.content.remove("status");
        }
        object.to_json()
    };
    cluster
        .api
        .objects
        .values()
        .filter(shown)
        .map(|object| (object.key().to_string(), masked(object)))
        .collect()
}

fn mask_times(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|key, _| !["lastTransitionTime", "since"].contains(&key.as_str()));
            fields.values_mut().for_each(mask_times);
        }
        Value::Array(items) => items.iter_mut().for_each(mask_times),
        _ => {}
    }
}

fn assert_same(expected: &BTreeMap<String, Value>, found: &BTreeMap<String, Value>, how: &str) {
    let keys = |map: &BTreeMap<String, Value>| map.keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(found), keys(expected), "{how}");
    for (key, value) in found {
        assert_eq!(value, &expected[key], "{how}: {key}");
    }
}

fn final_state_of_best_order() -> BTreeMap<String, Value> {
    let mut cluster = empty();
    for piece in [Crds, Namespace, Service, ExtensionService, ContourDeployment] {
        add(&mut cluster, piece);
    }
    cluster.settle();
    assert_eq!(cluster.condition("Ready"), "True/AsSpecified");
    end(&cluster)
}

#[test]
fn every_order_settles_in_the_same_objects_and_status() {
    let expected = final_state_of_best_order();
    let orders = orders();
    assert_eq!(orders.len(), 25);
    for order in orders {
        let mut cluster = empty();
        for piece in &order {
            cluster.api.now += std::time::Duration::from_secs(100);
            add(&mut cluster, *piece);
            cluster.settle();
        }
        assert_same(
            &expected,
            &end(&cluster),
            &format!("{order:?}, settling after each piece"),
        );
    }
}

#[test]
fn every_order_with_single_reconciles_has_the_same_final_state() {
    let expected = final_state_of_best_order();
    for order in orders() {
        let mut cluster = empty();
        for piece in &order {
            add(&mut cluster, *piece);
            cluster.reconcile();
        }
        cluster.settle();
        assert_same(
            &expected,
            &end(&cluster),
            &format!("{order:?}, one reconcile after each piece"),
        );
    }
}

#[test]
fn a_temporary_absence_of_any_piece_has_the_same_final_state() {
    let expected = final_state_of_best_order();
    for piece in [Service, ExtensionService, Namespace] {
        let mut cluster = empty();
        for piece in [Crds, Namespace, Service, ExtensionService, ContourDeployment] {
            add(&mut cluster, piece);
        }
        cluster.settle();
        remove(&mut cluster, piece);
        cluster.settle();
        assert_eq!(
            cluster.condition("Degraded").split('/').next(),
            Some("True"),
            "{piece:?}"
        );
        add(&mut cluster, piece);
        if piece == Namespace {
            add(&mut cluster, Service);
            add(&mut cluster, ExtensionService);
        }
        cluster.settle();
        let mut found = end(&cluster);
        let mut expected = expected.clone();
        if piece == Namespace {
            // Salts may differ.
            unsalt(&mut expected);
            unsalt(&mut found);
        }
        assert_same(&expected, &found, &format!("{piece:?} was missing"));
    }
}

/// Removes the hashes from names.
fn unsalt(end: &mut BTreeMap<String, Value>) {
    let text = serde_json::to_string(end).expect("JSON");
    let is_name = |word: &str| {
        word.starts_with("edge-") && word.len() >= 15 && word.rsplit('-').next().is_some_and(|hash| hash.len() == 10)
    };
    let mut plain = String::new();
    let mut word = String::new();
    for char in text.chars().chain(['\n']) {
        if char.is_ascii_alphanumeric() || char == '-' {
            word.push(char);
        } else {
            plain.push_str(if is_name(&word) {
                word.rsplit_once('-').map_or("", |(name, _)| name)
            } else {
                &word
            });
            plain.push(char);
            word.clear();
        }
    }
    *end = serde_json::from_str(&plain).expect("JSON");
}

#[test]
fn pieces_created_while_the_operator_is_down_settle_the_same() {
    let expected = final_state_of_best_order();
    let mut cluster = empty();
    add(&mut cluster, Crds);
    add(&mut cluster, ContourDeployment);
    cluster.settle();
    for piece in [Namespace, Service, ExtensionService] {
        add(&mut cluster, piece);
    }
    cluster.settle();
    assert_same(&expected, &end(&cluster), "everything at once");
    let deployment = Key::new(Kind::ContourDeployment, "projectcontour", "edge");
    assert!(cluster.api.objects.contains_key(&deployment));
}
