use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::controller::played::{self, Answer, refusal};
use crate::plan::{Kind, Object, Target};

fn owner() -> Owner {
    Owner {
        namespace: "projectcontour".to_owned(),
        name: "edge".to_owned(),
        uid: "u-edge".to_owned(),
    }
}

fn service(owner: &Owner) -> Object {
    let metadata = owner.metadata(Kind::Service, &owner.namespace, "edge-envoy");
    Object::from_json(Kind::Service, json!({"metadata": metadata})).expect("an object")
}

/// Returns the counters of writes after a write with this answer. A read of the object afterwards returns `there`.
async fn counted_after(write: Write, answer: Answer, there: Option<Value>) -> Vec<String> {
    let client = played::client(move |method, _| match (method.as_str(), &there) {
        ("GET", Some(object)) => Some((200, object.clone())),
        ("GET", None) => refusal(404, "NotFound"),
        _ => answer.clone(),
    });
    let (cache, answers, metrics, owner) = (Cache::default(), Answers::default(), Metrics::new(), owner());
    let apply = Apply {
        client: &client,
        cache: &cache,
        answers: &answers,
        metrics: &metrics,
        owner: &owner,
    };
    apply.write(write).await;
    let text = metrics.encode(Timestamp::UNIX_EPOCH);
    let samples = text.lines().filter(|line| line.starts_with("slipway_write"));
    samples.map(str::to_owned).collect()
}

#[tokio::test]
async fn a_failed_write_counts_by_its_reason_and_a_stale_one_does_not() {
    let ours = service(&owner());
    let foreign = json!({"metadata": {"namespace": "projectcontour", "name": "edge-envoy", "uid": "u-other"}});
    let create = || Write::Create(ours.clone());
    let replace = || Write::Replace(ours.clone());
    let delete = || Write::Delete(Target::of(&ours));
    let taken = || refusal(409, "AlreadyExists");
    let there = Some(ours.to_json());
    let table = [
        (create(), Some((201, ours.to_json())), None, "create", "success", None),
        (create(), taken(), there.clone(), "create", "stale", None),
        (
            create(),
            taken(),
            Some(foreign),
            "create",
            "error",
            Some("AlreadyExists"),
        ),
        (
            create(),
            refusal(404, "NotFound"),
            None,
            "create",
            "error",
            Some("NotFound"),
        ),
        (replace(), refusal(409, "Conflict"), there, "replace", "stale", None),
        (delete(), refusal(404, "NotFound"), None, "delete", "stale", None),
        (
            create(),
            refusal(403, "Forbidden"),
            None,
            "create",
            "error",
            Some("Forbidden"),
        ),
        (
            create(),
            refusal(422, "Invalid"),
            None,
            "create",
            "error",
            Some("Invalid"),
        ),
        (
            create(),
            refusal(400, "a webhook's own words"),
            None,
            "create",
            "error",
            Some("Other"),
        ),
        (
            create(),
            Some((503, json!("a proxy"))),
            None,
            "create",
            "error",
            Some("Other"),
        ),
        (
            create(),
            Some((201, json!("no object"))),
            None,
            "create",
            "error",
            Some("Unreadable"),
        ),
        (create(), None, None, "create", "error", Some("Transport")),
    ];
    for (write, answer, there, verb, outcome, reason) in table {
        let case = format!("{verb}, {answer:?}, {there:?}");
        let labels = format!("kind=\"Service\",verb=\"{verb}\"");
        let mut expected = vec![format!("slipway_writes_total{{{labels},outcome=\"{outcome}\"}} 1")];
        let error = reason.map(|reason| format!("slipway_write_errors_total{{{labels},reason=\"{reason}\"}} 1"));
        expected.extend(error);
        assert_eq!(counted_after(write, answer, there).await, expected, "{case}");
    }
}
