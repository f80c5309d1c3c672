//! The script of the proxy: decides what happens to each request and event, and records requests. The script itself sends and
//! receives nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::body::Bytes;

use super::plan::{Fault, OnRequest, OnStart, OnStream};
use super::request::{Asked, Set, Write};

/// The time for which events are withheld and a view stays stale.
pub const WITHHOLDING: Duration = Duration::from_millis(1500);

/// The time for which an overloaded API server reports its overload. Quick retries of the client cannot hide the overload.
const OVERLOADED: Duration = Duration::from_millis(1500);

/// The place of a fault that affects every set.
pub const EVERYWHERE: &str = "all";

/// The decision on a request.
#[derive(Clone, Debug)]
pub enum Decision {
    /// Forward the request.
    Forward,
    /// Apply the fault of the plan.
    Fail(OnRequest),
    /// Never answer.
    BlackHole,
    /// Answer with the first half of the response, and never finish.
    Stall,
    /// Answer with this earlier body.
    Stale(Bytes),
    /// Send nothing until this time; then report that the resource version has expired.
    SilentUntil(Instant),
}

/// The decision on an event.
#[derive(Clone, Copy, Debug)]
pub enum OnEvent {
    /// Pass the event on.
    Pass,
    /// Apply the fault of the plan.
    Fail(OnStream),
}

/// A recorded request.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The class of the request.
    pub asked: Asked,
    /// The time of arrival.
    pub at: Instant,
    /// The end of the request and the time until then; None for a request in progress. Without a response, the request ends when the
    /// operator abandons it. A watch ends when its response begins.
    pub end: Option<(End, Duration)>,
}

/// The end of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A response with this code.
    Answered(StatusCode),
    /// The operator abandoned the request, or exited.
    Abandoned,
}

/// A request in progress. Dropping the ticket records the end of the request.
#[derive(Debug)]
pub struct Ticket {
    script: Arc<Script>,
    round: u64,
    index: usize,
    end: End,
}

/// The script that the proxy follows.
#[derive(Debug, Default)]
pub struct Script(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The number of calls of [`Script::begin`]. A request of an earlier round must not record its end in the present one.
    round: u64,
    began: Option<Instant>,
    armed: Option<(Fault, String)>,
    /// The number of requests for each write.
    occurrences: HashMap<String, usize>,
    /// The time of the first fault, and the time for each set with a fault.
    fired: Option<Instant>,
    fired_at: BTreeMap<Set, Instant>,
    /// The sets with an event on their streams.
    events: BTreeSet<Set>,
    /// The earlier content of each set.
    past: HashMap<Set, Bytes>,
    seen: Vec<Seen>,
}

impl Script {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("the lock is not poisoned")
    }

    /// Starts a new round and discards the recorded requests. The fault, if any, is active from now on.
    pub fn begin(&self, armed: Option<(Fault, String)>) {
        let mut state = self.state();
        *state = State {
            round: state.round + 1,
            began: Some(Instant::now()),
            armed,
            past: std::mem::take(&mut state.past),
            ..State::default()
        };
    }

    /// Sets the past that a stale start reads.
    pub fn remember(&self, past: HashMap<Set, Bytes>) {
        self.state().past = past;
    }

    /// Returns the time of the first fault, or None.
    pub fn fired(&self) -> Option<Instant> {
        self.state().fired
    }

    /// Reports whether the fault has happened.
    pub fn has_fired(&self) -> bool {
        self.fired().is_some()
    }

    /// Reports whether no request is in progress and the operator noticed each silence.
    pub fn is_over(&self) -> bool {
        let state = self.state();
        let silent = state.fault_is(Fault::Stream(OnStream::Silent));
        state.seen.iter().all(|seen| seen.end.is_some())
            && (!silent || state.silences().all(|(_, noticed)| noticed.is_some()))
    }

    /// Returns the longest time between the silence of a stream and the next list or watch of its set. Ignores silences that the
    /// operator has not noticed yet.
    pub fn longest_silence(&self) -> Option<Duration> {
        let state = self.state();
        state
            .silences()
            .filter_map(|(since, noticed)| Some(noticed?.duration_since(since)))
            .max()
    }

    /// Returns the sets that the operator listed in this round.
    pub fn sets(&self) -> Vec<String> {
        let state = self.state();
        let lists = state.seen.iter().filter_map(|seen| match &seen.asked {
            Asked::List(set) => Some(set.to_string()),
            _ => None,
        });
        lists.collect()
    }

    /// Returns the sets with events on their streams in this round.
    pub fn events(&self) -> Vec<String> {
        self.state().events.iter().map(ToString::to_string).collect()
    }

    /// Returns the requests of this round.
    pub fn seen(&self) -> Vec<Seen> {
        self.state().seen.clone()
    }

    /// Returns the time when the last write ended, or now if a write is in progress.
    pub fn last_write(&self) -> Option<Instant> {
        let state = self.state();
        let writes = state.seen.iter().filter(|seen| matches!(seen.asked, Asked::Write(_)));
        writes
            .map(|seen| seen.end.map_or_else(Instant::now, |(_, took)| seen.at + took))
            .max()
    }

    /// Records a request and decides on it.
    pub fn decide(self: &Arc<Self>, asked: &Asked) -> (Decision, Ticket) {
        let mut state = self.state();
        let decision = match asked {
            Asked::Write(write) => state.on_write(write),
            Asked::List(set) => state.on_list(set),
            Asked::Watch(set) => state.on_watch(set),
            Asked::Read => Decision::Forward,
        };
        state.seen.push(Seen {
            asked: asked.clone(),
            at: Instant::now(),
            end: None,
        });
        let ticket = Ticket {
            script: self.clone(),
            round: state.round,
            index: state.seen.len() - 1,
            end: End::Abandoned,
        };
        (decision, ticket)
    }

    /// Decides on an event of a stream that was opened at `opened`.
    pub fn on_event(&self, set: &Set, opened: Instant) -> OnEvent {
        let mut state = self.state();
        state.events.insert(set.clone());
        let Some((Fault::Stream(fault), place)) = state.armed.clone() else {
            return OnEvent::Pass;
        };
        // A stream that was opened after the start of the round is a restarted stream.
        let is_meant =
            place == set.to_string() || (place == EVERYWHERE && state.began.is_some_and(|began| opened < began));
        if is_meant && state.fires_once(set) {
            OnEvent::Fail(fault)
        } else {
            OnEvent::Pass
        }
    }
}

impl State {
    fn on_write(&mut self, write: &Write) -> Decision {
        let count = self.occurrences.entry(write.to_string()).or_default();
        *count += 1;
        let place = numbered(write, *count);
        let Some((Fault::Request(fault), wanted)) = &self.armed else {
            return Decision::Forward;
        };
        let fault = *fault;
        let still = |fired: Instant| {
            matches!(fault, OnRequest::Answer(503 | 504))
                && fired.elapsed() < OVERLOADED
                && wanted
                    .rsplit_once('#')
                    .is_some_and(|(name, _)| name == write.to_string())
        };
        let due = match self.fired {
            None => *wanted == place,
            Some(fired) => still(fired),
        };
        if !due {
            return Decision::Forward;
        }
        self.fired.get_or_insert_with(Instant::now);
        Decision::Fail(fault)
    }

    fn on_list(&mut self, set: &Set) -> Decision {
        let Some((Fault::Start(fault), place)) = self.armed.clone() else {
            return Decision::Forward;
        };
        let is_meant = place == EVERYWHERE || place == set.to_string();
        match fault {
            OnStart::Stale if is_meant && self.fired.is_none_or(|fired| fired.elapsed() < WITHHOLDING) => {
                let Some(past) = self.past.get(set).cloned() else {
                    return Decision::Forward;
                };
                self.fires_once(set);
                Decision::Stale(past)
            }
            OnStart::ListBlackHole if is_meant && self.fires_once(set) => Decision::BlackHole,
            OnStart::ListStalls if is_meant && self.fires_once(set) => Decision::Stall,
            _ => Decision::Forward,
        }
    }

    fn on_watch(&mut self, set: &Set) -> Decision {
        let Some((Fault::Start(fault), place)) = self.armed.clone() else {
            return Decision::Forward;
        };
        let is_meant = place == EVERYWHERE || place == set.to_string();
        match (fault, self.fired) {
            (OnStart::Stale, Some(fired)) if self.fired_at.contains_key(set) && fired.elapsed() < WITHHOLDING => {
                Decision::SilentUntil(fired + WITHHOLDING)
            }
            (OnStart::WatchBlackHole, _) if is_meant && self.fires_once(set) => Decision::BlackHole,
            _ => Decision::Forward,
        }
    }

    fn fires_once(&mut self, set: &Set) -> bool {
        if self.fired_at.contains_key(set) {
            return false;
        }
        let now = Instant::now();
        self.fired.get_or_insert(now);
        self.fired_at.insert(set.clone(), now);
        true
    }

    fn fault_is(&self, fault: Fault) -> bool {
        self.armed.as_ref().is_some_and(|(armed, _)| *armed == fault)
    }

    /// Returns the time when each stream fell silent, and the time of the next list or watch of its set.
    fn silences(&self) -> impl Iterator<Item = (Instant, Option<Instant>)> {
        self.fired_at.iter().map(|(set, since)| {
            let again = self.seen.iter().find(|seen| {
                let is_same = matches!(&seen.asked, Asked::Watch(other) | Asked::List(other) if other == set);
                is_same && seen.at > *since
            });
            (*since, again.map(|seen| seen.at))
        })
    }
}

/// Returns the name of a place: the write and its number among the writes of this name.
pub fn numbered(write: &Write, count: usize) -> String {
    format!("{write}#{count}")
}

impl Ticket {
    /// Records that the operator gets a response with this code.
    pub fn answered(mut self, code: StatusCode) {
        self.end = End::Answered(code);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.script.state();
        if state.round != self.round {
            return;
        }
        if let Some(seen) = state.seen.get_mut(self.index) {
            seen.end = Some((self.end, seen.at.elapsed()));
        }
    }
}
