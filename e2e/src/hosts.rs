//! The two virtual hosts of the fixtures, `http.demo.test` and `https.demo.test`, as a client of one Envoy sees them.

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

/// The name of the HTTPS host. The host's certificate must have this name.
pub const HTTPS_HOST: &str = "https.demo.test";

/// The number of equal answers in a row that a change needs. Envoy has several threads, and each applies a change separately.
pub const AGREEING: usize = 20;

const HTTP_HOST: &str = "http.demo.test";

/// Both hosts.
#[derive(Clone, Debug)]
pub struct Hosts {
    http: Host,
    https: Host,
}

/// The answers of both hosts to the same request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Both {
    /// The HTTP host's answer.
    pub http: Answer,
    /// The HTTPS host's answer.
    pub https: Answer,
}

impl Both {
    /// Reports whether both hosts answered with this status code.
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
    /// Returns the hosts behind the Service `namespace/name`. This process must be able to reach the Service's cluster address.
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

    /// Sends a request to each host and returns both answers.
    pub async fn get(&self, caller: Caller) -> Both {
        let (http, https) = tokio::join!(self.http.get(caller), self.https.get(caller));
        Both { http, https }
    }

    /// Waits until both hosts answer with `status`, [`AGREEING`] times in a row. Earlier answers may be anything, for example while
    /// no Envoy exists yet.
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

    /// Waits until both hosts answer with `after`. An answer that is neither `after` nor in `before` is an error immediately.
    ///
    /// So traffic is not interrupted during the change: no refused connection, no failed handshake, no other status.
    pub async fn change(&self, caller: Caller, before: &[u16], after: u16) -> anyhow::Result<Both> {
        Wait::for_it(format!(
            "both hosts answer {after} to {caller}, with only {before:?} before"
        ))
        .every(Duration::from_millis(10))
        .until(async || {
            let both = self.get(caller).await;
            let expected = |status| status == after || before.contains(&status);
            if !both.each().all(|answer| answer.status().is_some_and(expected)) {
                bail!("during the change from {before:?} to {after}, {caller} got: {both}");
            }
            Ok(if both.are(after) {
                Look::Reached(both)
            } else {
                Look::NotYet(both.to_string())
            })
        })
        .await
    }

    /// Waits until both hosts enforce checks and returns the time since `start`. Anonymous requests must get 401. Authorized requests
    /// must get 200, and the backend must receive them with the authorization server's mark.
    ///
    /// This function sends one request at a time, on a new connection, 2 ms after the last. So the measurement takes little CPU from
    /// the cluster, which may have only two cores. The four combinations of host and caller are waited for in turn.
    pub async fn enforced_since(&self, start: Instant) -> anyhow::Result<Duration> {
        for host in [&self.http, &self.https] {
            for caller in [Caller::Anonymous, Caller::Authorized] {
                Wait::for_it(format!(
                    "{host:?} enforces the authorization server's decision on {caller}"
                ))
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

    /// Sends anonymous requests until `done` completes, and returns the distinct answers.
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

/// Waits until a Service has a cluster address, and returns the address.
pub async fn address(client: &Client, namespace: &str, name: &str) -> anyhow::Result<IpAddr> {
    let services = Api::<Service>::namespaced(client.clone(), namespace);
    let address = Wait::for_it(format!("Service {namespace}/{name} has an address"))
        .until(async || {
            let Some(service) = services.get_opt(name).await? else {
                return Ok(Look::NotYet("the Service does not exist".to_owned()));
            };
            let address = service.spec.and_then(|spec| spec.cluster_ip).filter(|ip| ip != "None");
            Ok(address.map_or_else(|| Look::NotYet("the Service has no address".to_owned()), Look::Reached))
        })
        .await?;
    address.parse().with_context(|| format!("the address {address}"))
}

/// The answers to anonymous requests during some time.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    requests: u32,
    answers: BTreeSet<String>,
}

impl Watched {
    /// Returns an error unless each answer had one of these status codes.
    pub fn only(&self, statuses: &[u16]) -> anyhow::Result<()> {
        let allowed: BTreeSet<_> = statuses.iter().map(ToString::to_string).collect();
        let strange: Vec<_> = self.answers.difference(&allowed).collect();
        anyhow::ensure!(strange.is_empty(), "some of {} requests got {strange:?}", self.requests);
        Ok(())
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} requests, answers {:?}", self.requests, self.answers)
    }
}
