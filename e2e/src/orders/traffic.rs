//! Requests to both hosts all the time while things come, and whether each answer was right.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::edge::{Component, Edge};
use crate::hosts::Hosts;
use crate::probe::{Answer, Caller};

/// Between two requests to the same host.
const PACE: Duration = Duration::from_millis(25);

/// So many rounds of requests between two looks at the pods.
const ROUNDS: u32 = 20;

/// So many wrong answers are kept.
const KEPT: usize = 10;

/// What answer is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// Nobody can be asked: 403.
    Denied,
    /// The authorization server is asked: 401, or what it lets pass.
    Enforced,
}

impl Right {
    /// Whether this answer is.
    pub fn is(self, caller: Caller, answer: &Answer) -> bool {
        match (self, caller) {
            (Self::Denied, _) => answer.status() == Some(403),
            (Self::Enforced, Caller::Anonymous) => answer.status() == Some(401),
            (Self::Enforced, Caller::Authorized) => answer.was_checked(),
        }
    }
}

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// How many requests were made.
    pub requests: u64,
    /// How often each answer came, once its host had given a right one.
    pub answers: BTreeMap<String, u64>,
    /// What was not right.
    pub wrong: Vec<String>,
}

#[derive(Debug, Default)]
struct Shared {
    right: BTreeSet<Right>,
    answered: BTreeSet<&'static str>,
    seen: Seen,
}

/// Clients of both hosts, and somebody who looks for restarts of Contour and Envoy, until this value is dropped.
#[derive(Debug)]
pub struct Traffic {
    task: JoinHandle<()>,
    shared: Arc<Mutex<Shared>>,
}

impl Traffic {
    /// Starts. Until a host has given its first right answer it is right, too, that nobody serves it yet.
    pub fn start(hosts: Hosts, edge: Edge, right: Right) -> Self {
        let shared = Arc::<Mutex<Shared>>::default();
        let traffic = Self {
            task: tokio::spawn(clients(hosts, edge, Arc::clone(&shared))),
            shared,
        };
        traffic.becomes(right);
        traffic
    }

    /// From now on this is right as well.
    pub fn may_become(&self, right: Right) {
        self.shared.lock().expect("no panic").right.insert(right);
    }

    /// From now on only this is right.
    pub fn becomes(&self, right: Right) {
        self.shared.lock().expect("no panic").right = BTreeSet::from([right]);
    }

    /// What was seen so far.
    pub fn seen(&self) -> Seen {
        self.shared.lock().expect("no panic").seen.clone()
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
        // What was right when a request began is so when its answer comes.
        let before = shared.lock().expect("no panic").right.clone();
        let both = hosts.get(caller).await;
        {
            let mut now = shared.lock().expect("no panic");
            now.take("http", caller, &both.http, &before);
            now.take("https", caller, &both.https, &before);
        }
        if round % ROUNDS == 0 {
            for component in [Component::Contour, Component::Envoy] {
                // An API server that does not answer is seen by whoever plays the order.
                if let Ok(pods) = edge.pods(component).await
                    && pods.restarts > 0
                {
                    let restarted = format!("{component:?}: {pods}");
                    shared.lock().expect("no panic").seen.is_wrong(restarted);
                }
            }
        }
    }
}

impl Shared {
    fn take(&mut self, host: &'static str, caller: Caller, answer: &Answer, before: &BTreeSet<Right>) {
        self.seen.requests += 1;
        let is_right = before.union(&self.right).any(|right| right.is(caller, answer));
        if is_right {
            self.answered.insert(host);
        } else if self.answered.contains(host) || passed(answer) {
            let right = &self.right;
            self.seen
                .is_wrong(format!("{host}, {caller}: {answer}, where {right:?} is right"));
        }
        if self.answered.contains(host) {
            *self.seen.answers.entry(answer.to_string()).or_default() += 1;
        }
    }
}

impl Seen {
    fn is_wrong(&mut self, what: String) {
        if self.wrong.len() < KEPT {
            self.wrong.push(what);
        }
    }
}

/// Whether the request went through: never right where it is not expected, whoever serves the host.
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

    fn taken(right: Right, answers: &[Answer]) -> Seen {
        let mut shared = Shared::default();
        let before = BTreeSet::from([right]);
        for answer in answers {
            shared.take("http", Caller::Anonymous, answer, &before);
        }
        shared.seen
    }

    #[test]
    fn nobody_there_is_right_only_until_the_first_right_answer() {
        let seen = taken(Right::Denied, &[Answer::Refused, status(404), status(403)]);
        assert_eq!((seen.requests, seen.wrong.len()), (3, 0), "{seen:?}");
        let seen = taken(Right::Denied, &[status(403), Answer::Refused]);
        assert_eq!(seen.wrong.len(), 1, "{seen:?}");
    }

    #[test]
    fn a_request_that_passes_where_none_may_is_never_right() {
        for right in [Right::Denied, Right::Enforced] {
            assert_eq!(taken(right, &[status(200)]).wrong.len(), 1, "{right:?}");
        }
        assert_eq!(taken(Right::Enforced, &[status(401)]).wrong, Vec::<String>::new());
    }
}
