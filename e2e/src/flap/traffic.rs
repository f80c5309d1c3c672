//! The constant traffic: clients of both hosts, each one request after the other, on connections that are kept for some
//! requests and then made anew.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;
use http_body_util::Empty;
use hyper::header::AUTHORIZATION;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, sleep, timeout};

use super::answers::Book;
use super::backend::PATH;
use crate::authorizer::{CHECKED_BY, CHECKER, CREDENTIALS};
use crate::probe::{Answer, Connection, Host, LIMIT};

/// Clients of each host.
pub const CLIENTS: usize = 8;

/// Time from one request of a client to its next: 240 a second from all of them, which two cores carry beside a cluster.
const PACE: Duration = Duration::from_millis(66);

/// Most requests on one connection.
const KEPT: u32 = 16;

/// What a client shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// What the authorization server wants.
    Good,
    /// Nothing.
    None,
    /// Something else.
    Wrong,
}

/// How a client tries to pass for checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgery {
    /// With the mark that the server puts on when nobody tells it another.
    Known,
    /// With an empty one.
    Empty,
    /// With two.
    Twice,
}

/// Over which connection a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// One made for it.
    New,
    /// One on which others went before.
    Kept,
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Whose: a number for each client.
    pub client: usize,
    /// What it shows.
    pub credentials: Credentials,
    /// Whether it forges the mark.
    pub forgery: Option<Forgery>,
    /// Over which connection.
    pub way: Way,
    /// When it began, its connection included.
    pub sent: Instant,
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with {:?} credentials", self.scheme, self.credentials)?;
        if let Some(forgery) = self.forgery {
            write!(f, ", forged ({forgery:?})")?;
        }
        write!(f, ", connection {:?}", self.way)
    }
}

/// Clients at work. They go on until [`Traffic::stop`], or until this value goes.
pub struct Traffic {
    clients: JoinSet<()>,
    stop: Arc<AtomicBool>,
}

impl Traffic {
    /// Starts them; what comes of their requests goes into the book.
    pub fn start(hosts: &[Host], book: &Arc<Book>, seed: u64) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let mut rng = Rng::with_seed(seed);
        let mut clients = JoinSet::new();
        let each = hosts.iter().flat_map(|host| std::iter::repeat_n(host, CLIENTS));
        for (number, host) in each.enumerate() {
            let client = Client {
                number,
                host: host.clone(),
                rng: rng.fork(),
                connection: None,
            };
            clients.spawn(client.run(Arc::clone(book), Arc::clone(&stop)));
        }
        Self { clients, stop }
    }

    /// Lets each client finish its request.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended?;
        }
        Ok(())
    }
}

struct Client {
    number: usize,
    host: Host,
    rng: Rng,
    /// With how many requests may still go over it.
    connection: Option<(Connection, u32)>,
}

impl Client {
    async fn run(mut self, book: Arc<Book>, stop: Arc<AtomicBool>) {
        sleep(PACE.mul_f64(self.rng.f64())).await;
        let mut ticks = tokio::time::interval(PACE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !stop.load(Ordering::Relaxed) {
            ticks.tick().await;
            let mut kept = self.connection.take().filter(|(_, left)| *left > 0);
            if let Some((connection, _)) = &mut kept
                && !connection.is_open().await
            {
                kept = None;
            }
            let ask = Ask {
                scheme: self.host.scheme(),
                client: self.number,
                credentials: *self
                    .rng
                    .choice(&[
                        Credentials::Good,
                        Credentials::Good,
                        Credentials::None,
                        Credentials::Wrong,
                    ])
                    .expect("some credentials"),
                forgery: match self.rng.u8(..12) {
                    0 => Some(Forgery::Known),
                    1 => Some(Forgery::Empty),
                    2 => Some(Forgery::Twice),
                    _ => None,
                },
                way: if kept.is_some() { Way::Kept } else { Way::New },
                sent: Instant::now(),
            };
            let answer = timeout(LIMIT, Box::pin(self.get(ask, kept)))
                .await
                .unwrap_or(Answer::Silent);
            book.note(&ask, &answer);
        }
    }

    async fn get(&mut self, ask: Ask, kept: Option<(Connection, u32)>) -> Answer {
        let (mut connection, left) = match kept {
            Some(kept) => kept,
            None => match self.host.connect().await {
                Ok(connection) => (connection, self.rng.u32(1..=KEPT)),
                Err(answer) => return answer,
            },
        };
        let mut request = self.host.request(PATH);
        request = match ask.credentials {
            Credentials::Good => request.header(AUTHORIZATION, CREDENTIALS),
            Credentials::None => request,
            Credentials::Wrong => request.header(AUTHORIZATION, "Bearer letmeout"),
        };
        request = match ask.forgery {
            None => request,
            Some(Forgery::Known) => request.header(CHECKED_BY, CHECKER),
            Some(Forgery::Empty) => request.header(CHECKED_BY, ""),
            Some(Forgery::Twice) => request.header(CHECKED_BY, CHECKER).header(CHECKED_BY, "yes"),
        };
        let answer = connection
            .send(request.body(Empty::new()).expect("its parts are valid"))
            .await;
        self.connection = Some((connection, left - 1));
        answer
    }
}
