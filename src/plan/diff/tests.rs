use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value, json};

use super::*;
use crate::api::vocabulary::{FINALIZER, labels};
use crate::plan::attempts::Attempts;
use crate::plan::object::Kind;
use crate::plan::operand::tests::observed;
use crate::plan::write::Target;

fn service(ports: &Value) -> Object {
    let metadata = json!({"name": "edge-envoy", "namespace": "projectcontour"});
    Object::from_json(Kind::Service, json!({"metadata": metadata, "spec": {"ports": ports}})).expect("a Service")
}

fn write(desired: &Desired, observed: &Observed, owner: &Owner) -> Option<Write> {
    match need(desired, observed, owner) {
        Need::Write(write) => Some(write),
        Need::Nothing(fields) => {
            assert!(fields.is_empty(), "{fields:?}");
            None
        }
        Need::Wait(held) => panic!("{held:?}"),
    }
}

/// Returns the write that brings a live object, changed by `change`, back to the desired state.
fn write_for(desired: &Desired, change: impl FnOnce(&mut Object)) -> Option<Write> {
    let mut observed = observed(&json!({}));
    let owner = observed.owner();
    let Some(Write::Create(mut live)) = write(desired, &observed, &owner) else {
        panic!("an absent object is created");
    };
    live.metadata.uid = Some("u-1".into());
    live.metadata.resource_version = Some("7".into());
    change(&mut live);
    observed.objects.insert(live.key(), Arc::new(live));
    write(desired, &observed, &owner)
}

fn binding() -> Desired {
    let owner = observed(&json!({})).owner();
    let mut object = Object {
        kind: Kind::RoleBinding,
        metadata: owner.metadata(Kind::RoleBinding, &owner.namespace, "a"),
        content: Map::from_iter([("roleRef".to_owned(), json!({"name": "r"}))]),
        creation_entry: None,
    };
    object.metadata.finalizers = Some(vec![FINALIZER.into()]);
    Desired::shared(object)
}

#[test]
fn a_missing_part_of_slipways_metadata_is_restored() {
    assert_eq!(write_for(&binding(), |_| {}), None);
    let losses: [fn(&mut ObjectMeta); 5] = [
        |live| drop(live.labels.take()),
        |live| drop(live.annotations.take()),
        |live| drop(live.finalizers.take()),
        |live| drop(live.owner_references.take()),
        |live| {
            let labels = live.labels.get_or_insert_default();
            labels.insert("app.kubernetes.io/part-of".into(), "other".into());
        },
    ];
    for (index, loss) in losses.into_iter().enumerate() {
        let write = write_for(&binding(), |live| loss(&mut live.metadata));
        assert!(matches!(write, Some(Write::Apply { .. })), "{index}: {write:?}");
    }
}

#[test]
fn a_replacing_update_keeps_the_metadata_of_others() {
    let whole = Desired {
        fields: Fields::Whole("roleRef"),
        ..binding()
    };
    let add = |live: &mut Object| {
        live.annotate("theirs", "yes".into());
        live.metadata
            .labels
            .get_or_insert_default()
            .insert("theirs".into(), "yes".into());
        live.metadata
            .finalizers
            .get_or_insert_default()
            .insert(0, "theirs".into());
        let mut reference = live.metadata.owner_references.clone().expect("an owner reference")[0].clone();
        reference.uid = "theirs".into();
        live.metadata.owner_references.get_or_insert_default().push(reference);
    };
    assert_eq!(write_for(&whole, add), None);
    let write = write_for(&whole, |live| {
        add(live);
        live.content.insert("roleRef".into(), json!({"name": "other"}));
        live.content.insert("beside".into(), json!(1));
        live.metadata
            .labels
            .get_or_insert_default()
            .remove("app.kubernetes.io/part-of");
    });
    let Some(Write::Replace(object)) = write else {
        panic!("{write:?}")
    };
    assert_eq!(object.content["roleRef"], json!({"name": "r"}));
    assert_eq!(object.content["beside"], json!(1), "another user owns the other field");
    assert_eq!(object.metadata.resource_version.as_deref(), Some("7"));
    assert_eq!(
        (object.annotation("theirs"), object.label("theirs")),
        (Some("yes"), Some("yes"))
    );
    assert_eq!(object.label("app.kubernetes.io/part-of"), Some("contour"));
    assert_eq!(
        object.metadata.finalizers,
        Some(vec!["theirs".into(), FINALIZER.into()])
    );
    let owners: Vec<_> = object
        .metadata
        .owner_references
        .iter()
        .flatten()
        .map(|owner| owner.uid.as_str())
        .collect();
    assert_eq!(owners, ["theirs", "u-edge"], "each owner once");
}

#[test]
fn a_terminating_object_changes_only_where_content_matters() {
    let ends = |live: &mut Object| {
        live.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2026-11-23T01:20:00Z")).expect("a time"));
        live.metadata.finalizers = Some(vec!["theirs".into()]);
    };
    let altered = |live: &mut Object| {
        ends(live);
        live.content.insert("roleRef".into(), json!({"name": "other"}));
    };
    for (fields, is_changed) in [
        (Fields::Shared { initial: &[] }, false),
        (Fields::MetadataOnly, false),
        (Fields::Whole("roleRef"), true),
        (Fields::Sealed { absent: &[] }, true),
    ] {
        let desired = Desired { fields, ..binding() };
        assert_eq!(write_for(&desired, ends), None, "{fields:?}");
        match write_for(&desired, altered) {
            Some(Write::Replace(object)) if is_changed => {
                assert_eq!(object.metadata.finalizers, Some(vec!["theirs".into()]), "{fields:?}");
            }
            other => assert!(other.is_none() && !is_changed, "{fields:?}: {other:?}"),
        }
    }
}

#[test]
fn a_sealed_object_loses_only_the_forbidden_fields() {
    let mut desired = Desired {
        object: service(&json!([{"name": "discard", "port": 9}])),
        fields: Fields::Sealed {
            absent: &["/spec/selector", "/spec/externalName"],
        },
    };
    desired.object.metadata = observed(&json!({}))
        .owner()
        .metadata(Kind::Service, "projectcontour", "a");
    assert_eq!(write_for(&desired, |_| {}), None);
    assert_eq!(
        write_for(&desired, |live| live.content["spec"]["type"] = "ClusterIP".into()),
        None
    );
    for field in ["selector", "externalName"] {
        let write = write_for(&desired, |live| {
            live.content["spec"][field] = json!("out");
            live.content["spec"]["type"] = "ClusterIP".into();
        });
        let Some(Write::Replace(object)) = write else {
            panic!("{field}: {write:?}")
        };
        assert_eq!(
            object.at("/spec"),
            Some(&json!({"type": "ClusterIP", "ports": [{"name": "discard", "port": 9}]})),
            "{field}"
        );
    }
}

#[test]
fn fields_set_only_at_creation_adopt_the_live_value() {
    let mut desired = binding();
    desired.object.content = Map::from_iter([("spec".to_owned(), json!({"replicas": 2, "x": 1}))]);
    desired.fields = Fields::Shared {
        initial: &["/spec/replicas"],
    };
    assert_eq!(
        write_for(&desired, |live| live.content["spec"]["replicas"] = 7.into()),
        None
    );
    let write = write_for(&desired, |live| live.content["spec"] = json!({"replicas": 7, "x": 2}));
    let Some(Write::Apply { object, adopt_creation }) = write else {
        panic!("{write:?}")
    };
    assert_eq!(object.at("/spec"), Some(&json!({"replicas": 7, "x": 1})));
    assert_eq!(
        (object.uid(), adopt_creation),
        ("u-1", None),
        "only the observed object"
    );
}

#[test]
fn the_creation_entry_is_adopted_at_the_observed_version() {
    for fields in [Fields::Shared { initial: &[] }, Fields::MetadataOnly] {
        let desired = Desired { fields, ..binding() };
        let write = write_for(&desired, |live| {
            live.metadata.labels = None;
            live.creation_entry = Some(3);
        });
        let Some(Write::Apply { object, adopt_creation }) = write else {
            panic!("{write:?}")
        };
        assert_eq!((object.uid(), adopt_creation), ("u-1", Some((3, "7".to_owned()))));
        assert_eq!(object.content.is_empty(), fields == Fields::MetadataOnly);
    }
}

#[test]
fn a_target_identifies_the_observed_object() {
    let mut object = binding().object;
    object.metadata.uid = Some("u-1".into());
    object.metadata.resource_version = Some("7".into());
    object.metadata.finalizers.get_or_insert_default().push("theirs".into());
    let target = Target::of(&object);
    assert_eq!((target.uid.as_str(), target.resource_version.as_str()), ("u-1", "7"));
    assert_eq!(target.other_finalizers, ["theirs"]);
    assert_eq!(target.key, object.key());
}

#[test]
fn three_kinds_are_startup_inputs() {
    let inputs: Vec<_> = Kind::ALL
        .iter()
        .copied()
        .filter(|kind| kind.is_startup_input())
        .collect();
    let mut expected = [Kind::ContourConfiguration, Kind::ExtensionService, Kind::Service];
    expected.sort();
    let mut inputs = inputs;
    inputs.sort();
    assert_eq!(inputs, expected);
}

/// A workload, with the API server's answer to its write as the live object.
struct Overruled {
    desired: Desired,
    observed: Observed,
    live: Object,
}

impl Overruled {
    fn answered(change: impl FnOnce(&mut Value)) -> Self {
        let mut observed = observed(&json!({}));
        let owner = observed.owner();
        let container = json!({"name": "contour", "image": "ghcr.io/contour", "command": ["contour"], "env": [{"name": "A", "value": "1"}]});
        let spec = json!({"template": {"spec": {"containers": [container], "tolerations": [{"key": "a"}]}}});
        let desired = Desired::shared(Object {
            kind: Kind::Deployment,
            metadata: owner.metadata(Kind::Deployment, &owner.namespace, &owner.contour()),
            content: Map::from_iter([("spec".to_owned(), spec)]),
            creation_entry: None,
        });
        let Need::Write(sent) = need(&desired, &observed, &owner) else {
            panic!("an absent object is created");
        };
        let Write::Create(mut live) = sent.clone() else {
            panic!("{sent:?}")
        };
        live.metadata.uid = Some("u-1".into());
        change(&mut live.content["spec"]["template"]["spec"]);
        let mut attempts = Attempts::default();
        attempts.taken(&sent, Some(&live), observed.now);
        observed.attempts = Arc::new(attempts);
        observed.objects.insert(live.key(), Arc::new(live.clone()));
        Self {
            desired,
            observed,
            live,
        }
    }

    fn need(&self) -> Need {
        need(&self.desired, &self.observed, &self.observed.owner())
    }

    fn changed(&mut self, change: impl FnOnce(&mut Value)) -> Need {
        let mut live = self.live.clone();
        change(&mut live.content["spec"]["template"]["spec"]);
        self.observed.objects.insert(live.key(), Arc::new(live));
        self.need()
    }

    /// Writes the workload once more. The API server gives the same answer.
    fn again(&mut self, seconds: u64) {
        let Need::Write(sent) = self.need() else {
            panic!("{:?}", self.need())
        };
        self.observed.now += Duration::from_secs(seconds);
        Arc::make_mut(&mut self.observed.attempts).taken(&sent, Some(&self.live), self.observed.now);
    }
}

#[test]
fn values_in_the_answer_are_accepted_and_reported() {
    let mirror = |pod: &mut Value| {
        pod["containers"][0]["image"] = "mirror/contour".into();
        pod["tolerations"] = json!([{"key": "a"}, {"key": "b"}]);
        pod["containers"]
            .as_array_mut()
            .expect("a list")
            .push(json!({"name": "sidecar"}));
    };
    let mut overruled = Overruled::answered(mirror);
    let Need::Nothing(fields) = overruled.need() else {
        panic!("{:?}", overruled.need())
    };
    let place = "spec.template.spec";
    assert_eq!(
        fields,
        [
            format!("{place}.containers[contour].image"),
            format!("{place}.tolerations")
        ]
    );
    // A later difference is drift, even of the same field.
    let drift = |pod: &mut Value| pod["containers"][0]["image"] = "other".into();
    assert!(matches!(overruled.changed(drift), Need::Write(Write::Apply { .. })));
    let drift = |pod: &mut Value| pod["containers"][0]["env"][0]["value"] = "2".into();
    assert!(matches!(overruled.changed(drift), Need::Write(Write::Apply { .. })));
    // Changed desired content is written, whatever the last answer was.
    overruled.changed(|_| {});
    overruled.desired.object.annotate("a", "b".to_owned());
    assert!(matches!(overruled.need(), Need::Write(_)));
    // A new process knows no answers.
    let mut overruled = Overruled::answered(mirror);
    overruled.observed.attempts = Arc::default();
    assert!(matches!(overruled.need(), Need::Write(_)));
}

#[test]
fn a_field_that_must_be_slipways_is_never_accepted_and_blocks() {
    let overruled = Overruled::answered(|pod| pod["containers"][0]["command"] = json!(["sh"]));
    let Need::Wait(held) = overruled.need() else {
        panic!("{:?}", overruled.need())
    };
    let failure = held.failure.expect("the failure is reported");
    assert_eq!(failure.cause, FailureCause::NotTaken);
    assert!(
        failure
            .message
            .contains("spec.template.spec.containers[contour].command"),
        "{}",
        failure.message
    );
    assert!(held.blocks && held.wait == Duration::from_secs(1), "{:?}", held.wait);
}

#[test]
fn contested_fields_are_reverted_at_once_then_with_back_off() {
    let mut contested = Overruled::answered(|_| {});
    contested.changed(|pod| pod["containers"][0]["image"] = "other".into());
    for _ in 0..20 {
        contested.again(1);
    }
    let mut waits = Vec::new();
    while waits.len() < 8 {
        let Need::Wait(held) = contested.need() else {
            panic!("{:?}", contested.need())
        };
        let failure = held.failure.expect("the failure is reported");
        assert_eq!(failure.cause, FailureCause::Contested);
        assert!(!held.blocks, "Contour does not read the image");
        waits.push(held.wait.as_secs());
        contested.observed.now += held.wait;
        contested.again(0);
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    contested.observed.now += Duration::from_mins(11);
    contested.again(0);
    assert!(
        matches!(contested.need(), Need::Write(_)),
        "the back-off starts again after a calm time"
    );
}

fn stand_in(namespace: &str, name: &str, service: &str) -> Object {
    let owner = json!({labels::OWNER_NAMESPACE: "projectcontour", labels::OWNER_NAME: "edge"});
    let metadata = json!({"namespace": namespace, "name": name, "labels": owner});
    let spec = json!({"services": [{"name": service, "port": 9}]});
    Object::from_json(Kind::ExtensionService, json!({"metadata": metadata, "spec": spec})).expect("an object")
}

#[test]
fn a_refused_creation_holds_others_in_another_namespace() {
    for (namespace, is_held) in [("projectcontour", false), ("auth", true)] {
        let mut observed = observed(&json!({}));
        let refused = stand_in(namespace, "edge-ext-auth-0000000000", "one");
        let failure = Failure {
            key: refused.key(),
            cause: FailureCause::Refused,
            message: "a quota".to_owned(),
        };
        let mut attempts = Attempts::default();
        attempts.failed(&Write::Create(refused), failure, observed.now);
        observed.attempts = Arc::new(attempts);
        let next = Desired::whole_spec(stand_in(namespace, "edge-ext-auth-1111111111", "one"));
        let found = need(&next, &observed, &observed.owner());
        match found {
            Need::Wait(held) => assert!(is_held && !held.blocks && held.failure.is_none(), "{namespace}"),
            other => assert!(
                !is_held && matches!(other, Need::Write(Write::Create(_))),
                "{namespace}"
            ),
        }
    }
}

#[test]
fn overruled_objects_block_only_in_the_own_namespace() {
    for (namespace, blocks) in [("projectcontour", true), ("auth", false)] {
        let mut observed = observed(&json!({}));
        let live = stand_in(namespace, "edge-ext-auth-0000000000", "evil");
        observed.objects.insert(live.key(), Arc::new(live.clone()));
        let desired = Desired::whole_spec(stand_in(namespace, "edge-ext-auth-0000000000", "one"));
        let Need::Write(write) = need(&desired, &observed, &observed.owner()) else {
            panic!("the object is not written")
        };
        let mut attempts = Attempts::default();
        assert!(!attempts.taken(&write, Some(&live), observed.now));
        observed.attempts = Arc::new(attempts);
        let Need::Wait(held) = need(&desired, &observed, &observed.owner()) else {
            panic!("the object is written again immediately")
        };
        assert_eq!(held.blocks, blocks, "{namespace}");
        assert_eq!(held.failure.map(|it| it.cause), Some(FailureCause::NotTaken));
    }
}
