//! The constant traffic. Each client of a host sends one request after another. A client keeps a connection for some requests and then
//! opens a new one.

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

/// The number of clients of each host.
pub const CLIENTS: usize = 8;

/// The interval between two requests of a client. All clients together send 240 requests a second, which two cores manage beside a cluster.
const PACE: Duration = Duration::from_millis(66);

/// The maximum number of requests on one connection.
const KEPT: u32 = 16;

/// The credentials of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// The credentials that the authorization server accepts.
    Good,
    /// No credentials.
    None,
    /// Other credentials.
    Wrong,
}

/// A client's attempt to forge the mark of a checked request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgery {
    /// The default mark of the authorization server.
    Known,
    /// An empty mark.
    Empty,
    /// Two marks.
    Twice,
}

/// The connection of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A new connection.
    New,
    /// A connection with earlier requests.
    Kept,
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The client's number.
    pub client: usize,
    /// The credentials.
    pub credentials: Credentials,
    /// The forged mark, if any.
    pub forgery: Option<Forgery>,
    /// The connection.
    pub way: Way,
    /// The start time, before the connection was opened.
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

/// Running clients. They stop with [`Traffic::stop`], or when this value is dropped.
pub struct Traffic {
    clients: JoinSet<()>,
    stop: Arc<AtomicBool>,
}

impl Traffic {
    /// Starts the clients. The book records their answers.
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

    /// Stops the clients after each has finished its request.
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
    /// The kept connection, with the number of requests that it may still serve.
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
