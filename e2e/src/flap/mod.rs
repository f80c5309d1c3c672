//! Flapping under traffic: the ExtensionService comes, is made invalid and goes at random moments on a real cluster, pods of
//! Contour and the operator are killed in between, and every request of a constant traffic on both listeners is accounted
//! for, by its client and by the backend.
//!
//! `script` draws what happens, `play` does it in the `place`, `traffic` asks, `answers` judges what its clients see, `backend`
//! counts what was not checked, `restarts` what started again. Here they come together in a chunk of cycles, which can be
//! played alone.

pub mod answers;
pub mod backend;
pub mod place;
pub mod play;
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
use crate::narration::say;
use crate::probe::Caller;
use crate::wait::{Look, Wait};

/// What `failOpen` is while it flaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// False: without the service requests are denied.
    FailClosed,
    /// True: without the service requests pass.
    FailOpen,
}

/// What came of a chunk of cycles.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// How many.
    pub cycles: usize,
    /// What the clients saw.
    pub counts: Counts,
    /// What the backend saw.
    pub arrivals: Arrivals,
    /// What was disturbed.
    pub faults: Faults,
    /// What must not be, in words.
    pub failures: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

/// Plays one chunk: from the absence of the service through its cycles, under traffic, until all is at rest again.
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
        failures.push(format!("Contour was rolled: from revision {revision} to {now}"));
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
    // Left alone, it comes to be enforced, and then to be gone.
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

/// Requests for each cycle, at least, of which so many are checked and pass, are refused, and find nobody who checks. Two
/// hundred cycles must come to 100,000, 20,000, 20,000 and 10,000.
const EACH: [u64; 4] = [550, 110, 110, 55];

/// Lets the traffic go on until there were enough of some of these.
async fn until_enough(book: &Book, cycles: usize, of: impl Fn(&Counts) -> [u64; 4]) -> anyhow::Result<()> {
    let wanted = EACH.map(|each| each * cycles as u64);
    Wait::for_it("the traffic has brought enough of everything")
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

/// What these counts say against it.
fn shortcomings(mode: Mode, counts: &Counts, arrivals: Arrivals) -> Vec<String> {
    let mut found = counts.described.clone();
    let mut must = |holds: bool, else_what: String| {
        if !holds {
            found.push(else_what);
        }
    };
    must(counts.wrong == 0, format!("{} wrong answers", counts.wrong));
    // A request whose answer was lost may or may not have arrived.
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
        must(count > 0, format!("no request was {what}: nothing was tested"));
    }
    match mode {
        Mode::FailClosed => {
            must(
                arrivals.unchecked() == 0,
                format!("requests reached the backend unchecked: {arrivals}"),
            );
            must(
                counts.denied > 0,
                "no request was denied: nothing was tested".to_owned(),
            );
        }
        // The control: what counts unchecked requests counts some when there are some.
        Mode::FailOpen => {
            must(
                arrivals.forged > 0 && arrivals.unmarked > 0,
                format!("the backend counted no unchecked requests ({arrivals}): its word means nothing"),
            );
            must(
                counts.windows > 0 && counts.in_windows > 0,
                "the service was never away for long enough: nothing was tested".to_owned(),
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
