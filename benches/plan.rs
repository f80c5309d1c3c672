//! Measures the time of one plan: `cargo bench --bench plan`.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use slipway::plan::{Kind, Object, Observed, Write, plan};
use slipway::render::{answered, observe};

const SAMPLE: &str = include_str!("../config/samples/contourdeployment.yaml");

const THREE_REFERENCES: &str = r"
apiVersion: contour.slipway.dev/v1alpha1
kind: ContourDeployment
metadata: {name: edge, namespace: projectcontour, uid: u-edge, generation: 1}
spec:
  runtimeSettings:
    globalExtAuth: {extensionRef: {namespace: auth, name: auth}}
    rateLimitService: {extensionService: {namespace: limits, name: ratelimit}, domain: edge}
    tracing: {extensionService: {namespace: traces, name: collector}}
";

/// Returns the observation after all planned objects are created, when the plan has no writes left.
fn converged(input: &str) -> Observed {
    let (_, mut observed) = answered(&observe(input).expect("an observation"));
    for _ in 0..4 {
        for write in plan(&observed).waves.into_iter().flat_map(|wave| wave.writes) {
            match write {
                Write::Create(object) => {
                    observed.objects.insert(object.key(), Arc::new(stored(object)));
                }
                Write::Hold(_) => {
                    let deployment = Arc::make_mut(&mut observed.deployment);
                    deployment.metadata.finalizers = Some(vec![slipway::api::vocabulary::FINALIZER.to_owned()]);
                }
                other => panic!("not a fresh installation: {other:?}"),
            }
        }
    }
    observed.issued = None;
    let planned = plan(&observed);
    assert!(planned.is_settled(), "{:?}", planned.waves);
    Arc::make_mut(&mut observed.deployment).status = Some(planned.status);
    observed
}

fn stored(mut object: Object) -> Object {
    object.metadata.uid = Some(format!("u-{}", object.name()));
    object.metadata.generation = Some(1);
    if matches!(object.kind, Kind::Deployment | Kind::DaemonSet) {
        object
            .content
            .insert("status".to_owned(), serde_json::json!({"observedGeneration": 1}));
    }
    object
}

fn plans(criterion: &mut Criterion) {
    let (_, fresh) = answered(&observe(SAMPLE).expect("an observation"));
    let observations = [
        ("fresh sample", fresh),
        ("converged sample", converged(SAMPLE)),
        ("converged, three references", converged(THREE_REFERENCES)),
    ];
    for (name, observed) in &observations {
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| plan(black_box(observed)));
        });
    }
}

criterion_group!(benches, plans);
criterion_main!(benches);
