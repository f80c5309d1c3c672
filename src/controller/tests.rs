use kube::runtime::watcher::Event;

use super::*;
use crate::plan::Object;
use crate::telemetry::{Liveness, Metrics, Readiness};
use cache::{StoreId, Touched};

/// Returns a context with this client, and the receiver of the watches' changes.
pub fn context(client: Client) -> (Context, mpsc::UnboundedReceiver<Touched>) {
    let (touch, touched) = mpsc::unbounded_channel();
    let telemetry = Telemetry {
        metrics: Metrics::new(),
        readiness: Readiness::new([]),
        liveness: Liveness::new(Duration::from_secs(1)),
    };
    let (metrics, readiness) = (telemetry.metrics.clone(), telemetry.readiness.clone());
    let cache = Arc::new(Cache::default());
    let context = Context {
        recorder: Recorder::new(client.clone(), "slipway".to_owned().into()),
        watches: Arc::new(Watches::new(client.clone(), cache.clone(), touch, metrics, readiness)),
        client,
        cache,
        answers: Answers::default(),
        backoff: Backoff::default(),
        agenda: Agenda::default(),
        leases: Leases::default(),
        options: Options {
            operator: ServiceAccountRef {
                namespace: "slipway-system".to_owned(),
                name: "slipway".to_owned(),
            },
        },
        telemetry,
        new_bindings: Mutex::default(),
        without_access: Mutex::default(),
        retries: mpsc::unbounded_channel().0,
    };
    (context, touched)
}

/// Fills a set with these objects.
pub fn holds(cache: &Cache, set: &StoreId, objects: impl IntoIterator<Item = Object>) -> Touched {
    let number = cache.begin(set);
    let objects = objects.into_iter().map(Event::InitApply);
    let events = [Event::Init].into_iter().chain(objects).chain([Event::InitDone]);
    let touched = events.filter_map(|event| cache.apply(set, number, event)).last();
    touched.expect("it was unread")
}

#[tokio::test]
async fn a_successor_of_the_same_name_waits_for_access_from_the_start() {
    // This API server never answers.
    let (context, _touched) = context(played::client(|_, _| None));
    let whose = NamespacedName::new("projectcontour", "edge");
    context.note_binding(&whose);
    let long_ago = Instant::now().checked_sub(Duration::from_hours(1));
    let long_ago = long_ago.expect("the clock has run for so long");
    context.without_access.lock().unwrap().insert(whose.clone(), long_ago);
    let a_minute = Duration::from_mins(1);
    assert!(context.has_new_binding(&whose, a_minute) && !context.waits_for_access(&whose, a_minute));
    context.forget(&whose);
    assert!(!context.has_new_binding(&whose, a_minute) && context.waits_for_access(&whose, a_minute));
}
