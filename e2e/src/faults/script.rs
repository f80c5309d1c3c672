//! What the proxy shall do to which request, and what it has seen. Requests and events go in, decisions come out; nothing is
//! sent or received here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::body::Bytes;

use super::plan::{Fault, OnRequest, OnStart, OnStream};
use super::request::{Asked, Set, Write};

/// How long events are withheld, and how long a view stays stale.
pub const WITHHOLDING: Duration = Duration::from_millis(1500);

/// An API server that is overloaded says so for this long, so that quick retries of the client don't hide it.
const OVERLOADED: Duration = Duration::from_millis(1500);

/// Where a fault may be: at every set.
pub const EVERYWHERE: &str = "all";

/// What to do with a request.
#[derive(Clone, Debug)]
pub enum Decision {
    /// Nothing special.
    Forward,
    /// The fault of the plan.
    Fail(OnRequest),
    /// Never answer.
    BlackHole,
    /// Answer with the first half, and never end.
    Stall,
    /// Answer with this body, which was true once.
    Stale(Bytes),
    /// Say nothing until then; and then that what was seen is worth nothing.
    SilentUntil(Instant),
}

/// What to do with an event.
#[derive(Clone, Copy, Debug)]
pub enum OnEvent {
    /// Pass it on.
    Pass,
    /// The fault of the plan.
    Fail(OnStream),
}

/// A request that was seen.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What was asked.
    pub asked: Asked,
    /// When it came.
    pub at: Instant,
    /// The end, and how long it took until then: the answer's, or (without one) of the operator's patience. Of a watch: until
    /// it began.
    pub end: Option<(End, Duration)>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With this code.
    Answered(StatusCode),
    /// The operator gave up, or was gone.
    Abandoned,
}

/// A request that is under way. The end is noted when it goes.
#[derive(Debug)]
pub struct Ticket {
    script: Arc<Script>,
    round: u64,
    index: usize,
    end: End,
}

/// What the proxy goes by.
#[derive(Debug, Default)]
pub struct Script(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Grows with each beginning, so that an end of what began before is not noted in the wrong place.
    round: u64,
    began: Option<Instant>,
    armed: Option<(Fault, String)>,
    /// How often each write was seen.
    occurrences: HashMap<String, usize>,
    /// When the fault happened first, and at which sets it did.
    fired: Option<Instant>,
    fired_at: BTreeMap<Set, Instant>,
    /// The sets on whose streams something came.
    events: BTreeSet<Set>,
    /// What each set was.
    past: HashMap<Set, Bytes>,
    seen: Vec<Seen>,
}

impl Script {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics with the lock")
    }

    /// Begins anew: what was seen is forgotten. The fault, if there is one, happens from now on.
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

    /// Makes a start find this past.
    pub fn remember(&self, past: HashMap<Set, Bytes>) {
        self.state().past = past;
    }

    /// When the fault happened first.
    pub fn fired(&self) -> Option<Instant> {
        self.state().fired
    }

    /// Whether the fault has happened.
    pub fn has_fired(&self) -> bool {
        self.fired().is_some()
    }

    /// Whether nobody waits for an answer any more, and each silence was noticed.
    pub fn is_over(&self) -> bool {
        let state = self.state();
        let silent = state.fault_is(Fault::Stream(OnStream::Silent));
        state.seen.iter().all(|seen| seen.end.is_some())
            && (!silent || state.silences().all(|(_, noticed)| noticed.is_some()))
    }

    /// How long the longest silence of a stream was, until the set was watched or read again; of those that were noticed.
    pub fn longest_silence(&self) -> Option<Duration> {
        let state = self.state();
        state
            .silences()
            .filter_map(|(since, noticed)| Some(noticed?.duration_since(since)))
            .max()
    }

    /// The sets that were read since the beginning.
    pub fn sets(&self) -> Vec<String> {
        let state = self.state();
        let lists = state.seen.iter().filter_map(|seen| match &seen.asked {
            Asked::List(set) => Some(set.to_string()),
            _ => None,
        });
        lists.collect()
    }

    /// The sets on whose streams something came since the beginning.
    pub fn events(&self) -> Vec<String> {
        self.state().events.iter().map(ToString::to_string).collect()
    }

    /// What was seen since the beginning.
    pub fn seen(&self) -> Vec<Seen> {
        self.state().seen.clone()
    }

    /// When the last write ended, or came.
    pub fn last_write(&self) -> Option<Instant> {
        let state = self.state();
        let writes = state.seen.iter().filter(|seen| matches!(seen.asked, Asked::Write(_)));
        writes
            .map(|seen| seen.end.map_or_else(Instant::now, |(_, took)| seen.at + took))
            .max()
    }

    /// A request has come.
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

    /// An event of a stream has come that was opened then.
    pub fn on_event(&self, set: &Set, opened: Instant) -> OnEvent {
        let mut state = self.state();
        state.events.insert(set.clone());
        let Some((Fault::Stream(fault), place)) = state.armed.clone() else {
            return OnEvent::Pass;
        };
        // A stream that begins later is one that was begun again.
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

    /// When each stream fell silent, and when the operator turned to its set again.
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

/// The name of a place: the write, and which of those of this name.
pub fn numbered(write: &Write, count: usize) -> String {
    format!("{write}#{count}")
}

impl Ticket {
    /// The operator gets an answer.
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
