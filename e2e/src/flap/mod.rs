//! Flapping under traffic. On a real cluster, the ExtensionService is created, made invalid and deleted at random moments. Meanwhile,
//! pods of Contour and the operator are killed. Constant traffic uses both listeners; the client and the backend account for every
//! request.
//!
//! `script` draws the actions, `play` executes them in the `place`, and `traffic` sends requests. `answers` judges the answers to the
//! clients, `backend` counts unchecked requests, and `restarts` records restarted containers. This module combines them in a chunk of
//! cycles, which can be played alone. `proof` plays all chunks.

pub mod answers;
pub mod backend;
pub mod place;
pub mod play;
pub mod proof;
pub mod restarts;
pub mod script;
pub mod traffic;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use self::answers::{Book, Counts};
use self::backend::Arrivals;
use self::place::Place;
use self::play::{Faults, Player};
use self::restarts::Restarts;
use self::script::{Form, Step};
use self::traffic::Traffic;
use crate::cases;
use crate::narration::say;
use crate::probe::Caller;
use crate::wait::{Look, Wait};

/// The value of `failOpen` during the flapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// False: without the service requests are denied.
    FailClosed,
    /// True: without the service requests pass.
    FailOpen,
}

/// The outcome of a chunk of cycles.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// The number of cycles.
    pub cycles: usize,
    /// The answers that the clients received.
    pub counts: Counts,
    /// The requests that the backend received.
    pub arrivals: Arrivals,
    /// The faults.
    pub faults: Faults,
    /// The failures of the proof.
    pub failures: Vec<String>,
    /// The duration.
    pub took: Duration,
}

impl cases::Outcome for Outcome {
    fn failures(&self) -> &[String] {
        &self.failures
    }
}

/// Plays one chunk under traffic: starts without the service, plays the cycles, and ends at rest again.
pub async fn chunk(place: &Place<'_>, mode: Mode, seed: u64, cycles: usize) -> anyhow::Result<Outcome> {
    place.rest(mode).await?;
    let began = Instant::now();
    let restarts = Restarts::watch(&place.client, &place.edge).await?;
    let revision = place.edge.revision().await?;
    let before = place.backend.arrivals();
    let book = Arc::new(Book::new(mode));
    let mut player = Player::new(place, Arc::clone(&book), seed);
    let traffic = Traffic::start(&place.hosts, &book, seed);
    let ended = play(place, mode, &mut player, &restarts, &book, seed, cycles).await;
    traffic.stop().await?;
    let counts = book.counts();
    let arrivals = place.backend.arrivals().since(before);
    say(format!("{counts}; backend: {arrivals}"));
    let mut failures = restarts.unexplained(&player.crashes);
    failures.extend(shortcomings(mode, &counts, arrivals));
    if let Err(error) = ended {
        failures.push(format!("{error:#}"));
    }
    let now = place.edge.revision().await?;
    if now != revision {
        failures.push(format!("Contour was rolled out: from revision {revision} to {now}"));
    }
    Ok(Outcome {
        cycles,
        counts,
        arrivals,
        faults: player.faults,
        failures,
        took: began.elapsed(),
    })
}

async fn play(
    place: &Place<'_>,
    mode: Mode,
    player: &mut Player<'_>,
    restarts: &Restarts,
    book: &Book,
    seed: u64,
    cycles: usize,
) -> anyhow::Result<()> {
    for (number, cycle) in script::script(seed, cycles).into_iter().enumerate() {
        let words: Vec<_> = cycle.iter().map(ToString::to_string).collect();
        say(format!("cycle {number}: {}", words.join(", ")));
        for step in cycle {
            player
                .step(step)
                .await
                .with_context(|| format!("cycle {number}, {step}"))?;
        }
    }
    // Without further faults the service is enforced, and after its deletion not.
    player.thawed().await?;
    restarts.until_shown(&player.crashes).await?;
    player.step(Step::Create(Form::Valid)).await?;
    place.until_answered(Caller::Anonymous, 401).await?;
    place.until_answered(Caller::Authorized, 200).await?;
    until_enough(book, cycles, |counts| {
        [u64::MAX, counts.checked, counts.refused, u64::MAX]
    })
    .await?;
    player.step(Step::Delete).await?;
    let without = if mode == Mode::FailOpen { 200 } else { 403 };
    place.until_answered(Caller::Anonymous, without).await?;
    let unasked = |counts: &Counts| counts.denied + counts.unchecked;
    until_enough(book, cycles, |counts| {
        [counts.requests, counts.checked, counts.refused, unasked(counts)]
    })
    .await?;
    place.rest(mode).await
}

/// The minimum numbers for each cycle: requests, requests that pass with a check, refused requests, and requests without the service.
/// Two hundred cycles must reach 100,000, 20,000, 20,000 and 10,000.
const EACH: [u64; 4] = [550, 110, 110, 55];

/// Continues the traffic until the counts of `of` reach [`EACH`] for this number of cycles.
async fn until_enough(book: &Book, cycles: usize, of: impl Fn(&Counts) -> [u64; 4]) -> anyhow::Result<()> {
    let wanted = EACH.map(|each| each * cycles as u64);
    Wait::for_it("the traffic has reached the minimum numbers")
        .within(Duration::from_mins(5))
        .every(Duration::from_millis(50))
        .silently()
        .until(async || {
            let now = of(&book.counts());
            let enough = now.iter().zip(&wanted).all(|(now, wanted)| now >= wanted);
            Ok(Look::when(enough, format!("{now:?} of {wanted:?}")))
        })
        .await
}

/// Returns the failures that these counts show.
fn shortcomings(mode: Mode, counts: &Counts, arrivals: Arrivals) -> Vec<String> {
    let mut found = counts.described.clone();
    let mut must = |holds: bool, else_what: String| {
        if !holds {
            found.push(else_what);
        }
    };
    must(counts.wrong == 0, format!("{} wrong answers", counts.wrong));
    // A request whose response was lost may or may not have reached the backend.
    let passed = counts.checked + counts.unchecked;
    must(
        passed == arrivals.of_clients || counts.wrong > 0,
        format!(
            "{passed} requests were answered by the backend, which counted {}",
            arrivals.of_clients
        ),
    );
    for (what, count) in [
        ("checked", counts.checked),
        ("refused", counts.refused),
        ("forged", counts.forged),
    ] {
        must(count > 0, format!("no request was {what}, so nothing was tested"));
    }
    match mode {
        Mode::FailClosed => {
            must(
                arrivals.unchecked() == 0,
                format!("requests reached the backend unchecked: {arrivals}"),
            );
            must(
                counts.denied > 0,
                "no request was denied, so nothing was tested".to_owned(),
            );
        }
        // The control: the counter of unchecked requests must count existing unchecked requests.
        Mode::FailOpen => {
            must(
                arrivals.forged > 0 && arrivals.unmarked > 0,
                format!("the backend counted no unchecked requests ({arrivals}), so its count proves nothing"),
            );
            must(
                counts.windows > 0 && counts.in_windows > 0,
                "the service was never absent for long enough, so nothing was tested".to_owned(),
            );
        }
    }
    found
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FailClosed => "closed",
            Self::FailOpen => "open",
        })
    }
}
