//! The verdicts on the answers while the ExtensionService is created and deleted. All answers are counted; a wrong answer is described
//! with the actions in progress.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::Mode;
use super::backend::{CHECKED, UNCHECKED};
use super::traffic::{Ask, CLIENTS, Credentials, Way};
use crate::narration::say;
use crate::probe::Answer;

/// The maximum number of wrong answers with a description; all wrong answers are counted.
const DESCRIBED: usize = 40;

/// The counts of a chunk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// All requests, with or without an answer.
    pub requests: u64,
    /// The requests over HTTPS.
    pub over_https: u64,
    /// The attempts to open a connection for a request. Over HTTPS each includes a full handshake.
    pub connections: u64,
    /// The handshakes among them.
    pub handshakes: u64,
    /// Requests with a forged mark.
    pub forged: u64,
    /// 200, checked.
    pub checked: u64,
    /// 200, unchecked.
    pub unchecked: u64,
    /// 401.
    pub refused: u64,
    /// 403.
    pub denied: u64,
    /// The deletions of the ExtensionService.
    pub absences: u64,
    /// The absences in which every client had a request that passed before the ExtensionService was recreated.
    pub windows: u64,
    /// The requests without good credentials in these windows.
    pub in_windows: u64,
    /// The longest time from a deletion to the last refused request, in milliseconds.
    pub lag_millis: u64,
    /// The wrong answers.
    pub wrong: u64,
    /// Descriptions of some wrong answers.
    pub described: Vec<String>,
}

/// The record of all answers of a chunk.
pub struct Book {
    mode: Mode,
    start: Instant,
    pages: Mutex<Pages>,
}

#[derive(Default)]
struct Pages {
    counts: Counts,
    /// The latest actions, with their times.
    service: Option<(Instant, String)>,
    fault: Option<(Instant, String)>,
    absence: Option<Absence>,
}

/// An absence of the ExtensionService.
struct Absence {
    since: Instant,
    /// The clients with a passed request that was sent during this absence.
    passed: BTreeSet<usize>,
    /// The time since which every client is in `passed`.
    window: Option<Instant>,
}

/// The verdict on an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Right,
    Wrong,
}

impl Book {
    /// Returns an empty record.
    pub fn new(mode: Mode) -> Self {
        Self {
            mode,
            start: Instant::now(),
            pages: Mutex::default(),
        }
    }

    /// Records the next action on the ExtensionService.
    pub fn service(&self, what: String) {
        let mut pages = self.pages.lock().expect("the lock is not poisoned");
        pages.absence = None;
        pages.service = Some((Instant::now(), what));
    }

    /// Records that the ExtensionService has been deleted.
    pub fn deleted(&self) {
        let mut pages = self.pages.lock().expect("the lock is not poisoned");
        pages.counts.absences += 1;
        pages.absence = Some(Absence {
            since: Instant::now(),
            passed: BTreeSet::new(),
            window: None,
        });
    }

    /// Records the next fault.
    pub fn fault(&self, what: String) {
        let mut pages = self.pages.lock().expect("the lock is not poisoned");
        pages.fault = Some((Instant::now(), what));
    }

    /// Records the answer to a request.
    pub fn note(&self, ask: &Ask, answer: &Answer) {
        let mut pages = self.pages.lock().expect("the lock is not poisoned");
        pages.counts.count(ask, answer);
        let verdict = match self.mode {
            Mode::FailClosed => fail_closed(ask.credentials, answer),
            Mode::FailOpen => pages.fail_open(ask, answer),
        };
        if verdict == Verdict::Wrong {
            pages.counts.wrong += 1;
            if pages.counts.described.len() < DESCRIBED {
                let words = pages.words(self.start, ask, answer);
                say(format!("WRONG: {words}"));
                pages.counts.described.push(words);
            }
        }
    }

    /// Returns the counts up to now.
    pub fn counts(&self) -> Counts {
        self.pages.lock().expect("the lock is not poisoned").counts.clone()
    }
}

/// Returns the verdict with `failOpen: false`. Good credentials pass with a check or are denied; others are refused or denied.
fn fail_closed(credentials: Credentials, answer: &Answer) -> Verdict {
    match (credentials, answer.status()) {
        (Credentials::Good, Some(200)) if is_checked(answer) => Verdict::Right,
        (Credentials::None | Credentials::Wrong, Some(401)) | (_, Some(403)) => Verdict::Right,
        _ => Verdict::Wrong,
    }
}

fn is_checked(answer: &Answer) -> bool {
    matches!(answer, Answer::Http { body, .. } if body == CHECKED)
}

fn is_unchecked(answer: &Answer) -> bool {
    matches!(answer, Answer::Http { body, .. } if body == UNCHECKED)
}

impl Pages {
    /// Returns the verdict with `failOpen: true`.
    ///
    /// No request is ever denied (403), and good credentials always pass. Other requests pass unchecked, or the service refuses them (401).
    /// A refusal is right while the service exists. It also is right after the deletion until Contour and Envoy have observed the deletion.
    /// That time ends when each client, on its own connection, has had a request that passed. From then until the creation request, no
    /// refusal is right.
    fn fail_open(&mut self, ask: &Ask, answer: &Answer) -> Verdict {
        let good = ask.credentials == Credentials::Good;
        match answer.status() {
            Some(200) if is_unchecked(answer) => {
                if !good {
                    self.passed(ask);
                }
                Verdict::Right
            }
            Some(200) if good && is_checked(answer) => Verdict::Right,
            Some(401) if !good => self.refused(ask),
            _ => Verdict::Wrong,
        }
    }

    fn passed(&mut self, ask: &Ask) {
        let Some(absence) = self.absence.as_mut().filter(|absence| ask.sent >= absence.since) else {
            return;
        };
        if let Some(window) = absence.window {
            self.counts.in_windows += u64::from(ask.sent >= window);
            return;
        }
        absence.passed.insert(ask.client);
        if absence.passed.len() == 2 * CLIENTS {
            absence.window = Some(Instant::now());
            self.counts.windows += 1;
        }
    }

    fn refused(&mut self, ask: &Ask) -> Verdict {
        let Some(absence) = self.absence.as_mut().filter(|absence| ask.sent >= absence.since) else {
            return Verdict::Right;
        };
        if absence.window.is_some_and(|window| ask.sent >= window) {
            return Verdict::Wrong;
        }
        absence.passed.remove(&ask.client);
        let lag = millis(absence.since.elapsed());
        self.counts.lag_millis = self.counts.lag_millis.max(lag);
        Verdict::Right
    }

    fn words(&self, start: Instant, ask: &Ask, answer: &Answer) -> String {
        let now = Instant::now();
        let seconds = |since: Instant| now.duration_since(since).as_secs_f64();
        let ago = |done: &Option<(Instant, String)>| {
            done.as_ref().map_or("none yet".to_owned(), |(when, what)| {
                format!("{what} {:.3} s ago", seconds(*when))
            })
        };
        format!(
            "after {:.3} s, sent {:.3} s ago: {ask}: {answer}{}; last action: {}; last fault: {}",
            seconds(start),
            seconds(ask.sent),
            if is_unchecked(answer) { " (unchecked)" } else { "" },
            ago(&self.service),
            ago(&self.fault),
        )
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} requests ({} over HTTPS, {} handshakes, {} forged): {} × 200 checked, {} × 200 unchecked, {} × 401, {} × 403, {} wrong",
            self.requests,
            self.over_https,
            self.handshakes,
            self.forged,
            self.checked,
            self.unchecked,
            self.refused,
            self.denied,
            self.wrong
        )
    }
}

impl Counts {
    fn count(&mut self, ask: &Ask, answer: &Answer) {
        let (https, new) = (ask.scheme == "https", ask.way == Way::New);
        self.requests += 1;
        self.over_https += u64::from(https);
        self.connections += u64::from(new);
        self.handshakes += u64::from(https && new);
        self.forged += u64::from(ask.forgery.is_some());
        match answer.status() {
            Some(200) if is_checked(answer) => self.checked += 1,
            Some(200) if is_unchecked(answer) => self.unchecked += 1,
            Some(401) => self.refused += 1,
            Some(403) => self.denied += 1,
            _ => {}
        }
    }

    /// Adds the counts of another chunk.
    pub fn add(&mut self, other: &Self) {
        let Self {
            requests,
            over_https,
            connections,
            handshakes,
            forged,
            checked,
            unchecked,
            refused,
            denied,
            absences,
            windows,
            in_windows,
            lag_millis,
            wrong,
            described,
        } = other;
        self.requests += requests;
        self.over_https += over_https;
        self.connections += connections;
        self.handshakes += handshakes;
        self.forged += forged;
        self.checked += checked;
        self.unchecked += unchecked;
        self.refused += refused;
        self.denied += denied;
        self.absences += absences;
        self.windows += windows;
        self.in_windows += in_windows;
        self.lag_millis = self.lag_millis.max(*lag_millis);
        self.wrong += wrong;
        self.described.extend(described.iter().cloned());
    }
}
