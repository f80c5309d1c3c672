//! Constant requests to both hosts while pieces are created, and the check of each answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::edge::{Component, Edge};
use crate::hosts::Hosts;
use crate::probe::{Answer, Caller};

/// The interval between two requests to the same host.
const PACE: Duration = Duration::from_millis(25);

/// The number of rounds of requests between two observations of the pods.
const ROUNDS: u32 = 20;

/// The maximum number of wrong answers that are recorded.
const KEPT: usize = 10;

/// The expected answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExpectedAnswer {
    /// No service can be asked: 403.
    Denied,
    /// The authorization server is asked: 401 without credentials, its mark with credentials.
    Enforced,
}

impl ExpectedAnswer {
    /// Reports whether this answer to this caller is as expected.
    pub fn is(self, caller: Caller, answer: &Answer) -> bool {
        match (self, caller) {
            (Self::Denied, _) => answer.status() == Some(403),
            (Self::Enforced, Caller::Anonymous) => answer.status() == Some(401),
            (Self::Enforced, Caller::Authorized) => answer.was_checked(),
        }
    }
}

/// The recorded answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The number of requests.
    pub requests: u64,
    /// The number of times of each answer, counted from the host's first expected answer.
    pub answers: BTreeMap<String, u64>,
    /// The wrong answers.
    pub wrong: Vec<String>,
}

#[derive(Debug, Default)]
struct Shared {
    right: BTreeSet<ExpectedAnswer>,
    answered: BTreeSet<&'static str>,
    seen: Record,
}

/// Clients of both hosts and a watcher for restarts of Contour and Envoy. They stop when this value is dropped.
#[derive(Debug)]
pub struct Traffic {
    task: JoinHandle<()>,
    shared: Arc<Mutex<Shared>>,
}

impl Traffic {
    /// Starts the traffic. Until a host has given its first expected answer, it may also be unreachable.
    pub fn start(hosts: Hosts, edge: Edge, right: ExpectedAnswer) -> Self {
        let shared = Arc::<Mutex<Shared>>::default();
        let traffic = Self {
            task: tokio::spawn(clients(hosts, edge, Arc::clone(&shared))),
            shared,
        };
        traffic.expect_only(right);
        traffic
    }

    /// Also accepts this answer from now on.
    pub fn also_expect(&self, right: ExpectedAnswer) {
        self.shared
            .lock()
            .expect("the lock is not poisoned")
            .right
            .insert(right);
    }

    /// Accepts only this answer from now on.
    pub fn expect_only(&self, right: ExpectedAnswer) {
        self.shared.lock().expect("the lock is not poisoned").right = BTreeSet::from([right]);
    }

    /// Returns the answers recorded so far.
    pub fn seen(&self) -> Record {
        self.shared.lock().expect("the lock is not poisoned").seen.clone()
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn clients(hosts: Hosts, edge: Edge, shared: Arc<Mutex<Shared>>) {
    let mut ticks = tokio::time::interval(PACE);
    for round in 0_u32.. {
        ticks.tick().await;
        let caller = if round % 2 == 0 {
            Caller::Anonymous
        } else {
            Caller::Authorized
        };
        // An answer that was expected when the request began is still accepted when it arrives.
        let before = shared.lock().expect("the lock is not poisoned").right.clone();
        let both = hosts.get(caller).await;
        {
            let mut now = shared.lock().expect("the lock is not poisoned");
            now.take("http", caller, &both.http, &before);
            now.take("https", caller, &both.https, &before);
        }
        if round % ROUNDS == 0 {
            for component in [Component::Contour, Component::Envoy] {
                // The order itself fails if the API server does not answer.
                if let Ok(pods) = edge.pods(component).await
                    && pods.restarts > 0
                {
                    let restarted = format!("{component:?}: {pods}");
                    shared
                        .lock()
                        .expect("the lock is not poisoned")
                        .seen
                        .is_wrong(restarted);
                }
            }
        }
    }
}

impl Shared {
    fn take(&mut self, host: &'static str, caller: Caller, answer: &Answer, before: &BTreeSet<ExpectedAnswer>) {
        self.seen.requests += 1;
        let is_right = before.union(&self.right).any(|right| right.is(caller, answer));
        if is_right {
            self.answered.insert(host);
        } else if self.answered.contains(host) || passed(answer) {
            let right = &self.right;
            self.seen
                .is_wrong(format!("{host}, {caller}: {answer}, expected {right:?}"));
        }
        if self.answered.contains(host) {
            *self.seen.answers.entry(answer.to_string()).or_default() += 1;
        }
    }
}

impl Record {
    fn is_wrong(&mut self, what: String) {
        if self.wrong.len() < KEPT {
            self.wrong.push(what);
        }
    }
}

/// Reports whether the request passed. Unexpected, this is always wrong, regardless of what serves the host.
fn passed(answer: &Answer) -> bool {
    answer.status() == Some(200)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(status: u16) -> Answer {
        let body = String::new();
        Answer::Http { status, body }
    }

    fn taken(right: ExpectedAnswer, answers: &[Answer]) -> Record {
        let mut shared = Shared::default();
        let before = BTreeSet::from([right]);
        for answer in answers {
            shared.take("http", Caller::Anonymous, answer, &before);
        }
        shared.seen
    }

    #[test]
    fn host_may_be_unreachable_only_before_its_first_answer() {
        let seen = taken(ExpectedAnswer::Denied, &[Answer::Refused, status(404), status(403)]);
        assert_eq!((seen.requests, seen.wrong.len()), (3, 0), "{seen:?}");
        let seen = taken(ExpectedAnswer::Denied, &[status(403), Answer::Refused]);
        assert_eq!(seen.wrong.len(), 1, "{seen:?}");
    }

    #[test]
    fn request_that_passes_unexpectedly_is_always_wrong() {
        for right in [ExpectedAnswer::Denied, ExpectedAnswer::Enforced] {
            assert_eq!(taken(right, &[status(200)]).wrong.len(), 1, "{right:?}");
        }
        assert_eq!(
            taken(ExpectedAnswer::Enforced, &[status(401)]).wrong,
            Vec::<String>::new()
        );
    }
}
