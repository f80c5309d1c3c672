//! The two virtual hosts of the fixtures, `http.demo.test` and `https.demo.test`, seen by a client of one Envoy.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::Service;
use kube::{Api, Client};
use rustls::pki_types::CertificateDer;
use tokio::time::Instant;

use crate::probe::{Answer, Caller, Host};
use crate::wait::{Look, Wait};

/// Name of the HTTPS host; its certificate must be for it.
pub const HTTPS_HOST: &str = "https.demo.test";

/// Answers in a row that must agree: Envoy has several threads, and each hears of a change by itself.
pub const AGREEING: usize = 20;

const HTTP_HOST: &str = "http.demo.test";

/// Both hosts.
#[derive(Clone, Debug)]
pub struct Hosts {
    http: Host,
    https: Host,
}

/// An answer of each host to the same request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Both {
    /// The HTTP host's.
    pub http: Answer,
    /// The HTTPS host's.
    pub https: Answer,
}

impl Both {
    /// Whether both answered with this status code.
    pub fn are(&self, status: u16) -> bool {
        self.each().all(|answer| answer.status() == Some(status))
    }

    fn each(&self) -> impl Iterator<Item = &Answer> {
        [&self.http, &self.https].into_iter()
    }
}

impl fmt::Display for Both {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http {}, https {}", self.http, self.https)
    }
}

impl Hosts {
    /// The hosts behind the Service `namespace/name`, whose cluster address must be reachable from here.
    pub async fn behind(
        client: &Client,
        namespace: &str,
        name: &str,
        authority: &CertificateDer<'static>,
    ) -> anyhow::Result<Self> {
        let address = address(client, namespace, name).await?;
        Ok(Self {
            http: Host::http(HTTP_HOST, SocketAddr::new(address, 80)),
            https: Host::https(HTTPS_HOST, SocketAddr::new(address, 443), authority.clone())?,
        })
    }

    /// What both answer now.
    pub async fn get(&self, caller: Caller) -> Both {
        let (http, https) = tokio::join!(self.http.get(caller), self.https.get(caller));
        Both { http, https }
    }

    /// Waits until both answer with `status`, again and again, whatever they do until then (also when there is no Envoy yet).
    pub async fn until(&self, caller: Caller, status: u16) -> anyhow::Result<Both> {
        let mut agreed = 0;
        Wait::for_it(format!("both hosts answer {status} to {caller}"))
            .every(Duration::from_millis(10))
            .until(async || {
                let both = self.get(caller).await;
                agreed = if both.are(status) { agreed + 1 } else { 0 };
                Ok(if agreed == AGREEING {
                    Look::Reached(both)
                } else {
                    Look::NotYet(both.to_string())
                })
            })
            .await
    }

    /// Waits until both answer with `after`; anything but that and what `before` lists is an error at once.
    ///
    /// This is what "nothing breaks meanwhile" means: no refused connection, no failed handshake, no other status.
    pub async fn change(&self, caller: Caller, before: &[u16], after: u16) -> anyhow::Result<Both> {
        Wait::for_it(format!(
            "both hosts answer {after} to {caller}, nothing but {before:?} until then"
        ))
        .every(Duration::from_millis(10))
        .until(async || {
            let both = self.get(caller).await;
            let expected = |status| status == after || before.contains(&status);
            if !both.each().all(|answer| answer.status().is_some_and(expected)) {
                bail!("on the way from {before:?} to {after} {caller} got: {both}");
            }
            Ok(if both.are(after) {
                Look::Reached(both)
            } else {
                Look::NotYet(both.to_string())
            })
        })
        .await
    }

    /// Waits until checks are enforced on both hosts: 401 to the anonymous, 200 to the authorized, whose requests the
    /// backend gets with the authorization server's mark. Returns the time since `start`.
    ///
    /// One request at a time, each on a connection of its own and 2 ms after the last, so that watching takes little from
    /// the cluster, which may have only two cores. Each of the four is waited for in turn.
    pub async fn enforced_since(&self, start: Instant) -> anyhow::Result<Duration> {
        for host in [&self.http, &self.https] {
            for caller in [Caller::Anonymous, Caller::Authorized] {
                Wait::for_it(format!("{host:?} treats {caller} as the authorization server says"))
                    .every(Duration::from_millis(2))
                    .silently()
                    .until(async || {
                        let answer = host.get(caller).await;
                        let right = match caller {
                            Caller::Anonymous => answer.status() == Some(401),
                            Caller::Authorized => answer.was_checked(),
                        };
                        Ok(Look::when(right, answer.to_string()))
                    })
                    .await?;
            }
        }
        Ok(start.elapsed())
    }

    /// Makes anonymous requests until dropped or `done` completes, and returns all the different answers.
    pub async fn watch_until<T>(&self, done: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<(T, Watched)> {
        let mut done = std::pin::pin!(done);
        let mut watched = Watched::default();
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        loop {
            tokio::select! {
                outcome = &mut done => return Ok((outcome?, watched)),
                _ = ticks.tick() => {
                    watched.requests += 2;
                    for answer in self.get(Caller::Anonymous).await.each() {
                        watched.answers.insert(answer.to_string());
                    }
                }
            }
        }
    }
}

/// The address of a Service inside of the cluster, as soon as it has one.
pub async fn address(client: &Client, namespace: &str, name: &str) -> anyhow::Result<IpAddr> {
    let services = Api::<Service>::namespaced(client.clone(), namespace);
    let address = Wait::for_it(format!("Service {namespace}/{name} has an address"))
        .until(async || {
            let Some(service) = services.get_opt(name).await? else {
                return Ok(Look::NotYet("there is no such Service".to_owned()));
            };
            let address = service.spec.and_then(|spec| spec.cluster_ip).filter(|ip| ip != "None");
            Ok(address.map_or_else(|| Look::NotYet("it has no address".to_owned()), Look::Reached))
        })
        .await?;
    address.parse().with_context(|| format!("the address {address}"))
}

/// What anonymous requests saw during some time.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    requests: u32,
    answers: BTreeSet<String>,
}

impl Watched {
    /// Fails unless each answer had one of these status codes.
    pub fn only(&self, statuses: &[u16]) -> anyhow::Result<()> {
        let allowed: BTreeSet<_> = statuses.iter().map(ToString::to_string).collect();
        let strange: Vec<_> = self.answers.difference(&allowed).collect();
        anyhow::ensure!(strange.is_empty(), "of {} requests some got {strange:?}", self.requests);
        Ok(())
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} requests, answers {:?}", self.requests, self.answers)
    }
}
