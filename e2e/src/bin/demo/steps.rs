//! The steps of the demo. Each fails at the first thing that is not as it says.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use kube::Client;
use slipway_e2e::cluster::Cluster;
use slipway_e2e::edge::{Component, Edge, Status};
use slipway_e2e::hosts::Hosts;
use slipway_e2e::installation::{self, AuthService};
use slipway_e2e::kubectl::Kubectl;
use slipway_e2e::narration::{say, show};
use slipway_e2e::probe::Caller;
use slipway_e2e::report::{self, Report};
use slipway_e2e::wait::{Look, Wait};
use slipway_e2e::{leftovers, places, stock};

/// For what pulls up pods: two cores may be busy with all of them.
const ROLLOUT: Duration = Duration::from_mins(2);

/// The longest time for which Contour holds an update back, and a little more.
const HOLD_OFF: Duration = Duration::from_millis(600);

/// The demo once everything is installed.
pub struct Demo<'a> {
    cluster: &'a Cluster,
    report: &'a mut Report,
    client: Client,
    edge: Edge,
    hosts: Hosts,
    service: AuthService,
}

impl<'a> Demo<'a> {
    /// Step 1.
    pub async fn install(cluster: &'a Cluster, report: &'a mut Report) -> anyhow::Result<Self> {
        let client = cluster.client().await?;
        let kubectl = cluster.kubectl();
        let auth = kubectl.run(&["get", "namespace", "auth", "--ignore-not-found"]).await?;
        ensure!(
            auth.is_empty(),
            "there is a namespace auth already: this needs a fresh cluster"
        );
        installation::contour_crds(cluster).await?;
        say("Contour's CRDs are installed");
        let authority = installation::backend(cluster).await?;
        say("a backend runs, behind one HTTP and one HTTPS host");
        installation::slipway(cluster).await?;
        say("Slipway runs (kubectl apply -k config/default)");
        let applied = kubectl.apply_file(&places::sample("contourdeployment.yaml")).await?;
        say("kubectl apply -f config/samples/contourdeployment.yaml");
        show(&applied);
        let edge = Edge::new(client.clone(), "projectcontour", "edge");
        let hosts = Hosts::behind(&client, "projectcontour", "edge-envoy", &authority).await?;
        let service = AuthService::new(&client)?;
        Ok(Self {
            cluster,
            report,
            client,
            edge,
            hosts,
            service,
        })
    }

    fn kubectl(&self) -> &Kubectl {
        self.cluster.kubectl()
    }

    /// Step 2.
    pub async fn runs_without(&mut self) -> anyhow::Result<()> {
        let edge = &self.edge;
        let status = Wait::for_it("Contour and Envoy are available")
            .within(ROLLOUT)
            .until(async || edge.look_settled().await)
            .await?;
        let both = self.hosts.until(Caller::Anonymous, 403).await?;
        self.report.note_missing(&both);
        self.hosts.until(Caller::Authorized, 403).await?;
        self.show_status().await?;
        ensure!(
            status.is("Ready", "False") && status.is("Degraded", "True"),
            "Ready False, Degraded True wanted: {status}"
        );
        let reason = status
            .condition("Ready")
            .map(|ready| (ready.reason.clone(), ready.message.clone()));
        let (reason, message) = reason.unwrap_or_default();
        ensure!(reason == "ExtensionServiceMissing", "the reason is {reason:?}");
        say(format!("the reason: {message}"));
        self.no_restarts().await
    }

    /// Step 3.
    pub async fn enforces(&mut self) -> anyhow::Result<()> {
        let before = self.edge.revision().await?;
        installation::auth_server(self.cluster).await?;
        say("namespace auth, the authorization server and its Service are there, and it is ready");
        let edge = &self.edge;
        Wait::for_it("Contour was rolled once, to a stand-in in namespace auth")
            .within(ROLLOUT)
            .until(async || {
                let status = match edge.look_settled().await? {
                    Look::Reached(status) => status,
                    Look::NotYet(seen) => return Ok(Look::NotYet(seen)),
                };
                let place = status
                    .extension_services
                    .first()
                    .and_then(|service| service.stand_in.as_ref());
                let place = place.map_or("nowhere", |stand_in| &stand_in.namespace);
                let rolls = edge.revision().await?.saturating_sub(before);
                ensure!(rolls <= 1, "Contour was rolled {rolls} times");
                Ok(Look::when(
                    place == "auth" && rolls == 1,
                    format!("the stand-in is in {place}, {rolls} rolls"),
                ))
            })
            .await?;
        self.no_restarts().await?;
        let taken = self.create_and_measure().await?;
        self.report.enforced_after_ms = Some(taken);
        let (anonymous, authorized) = (
            self.hosts.get(Caller::Anonymous).await,
            self.hosts.get(Caller::Authorized).await,
        );
        say(format!("without credentials: {anonymous}; with: {authorized}"));
        self.report.note_enforced(&anonymous, &authorized);
        ensure!(anonymous.are(401) && authorized.are(200), "401 and 200 wanted");
        self.await_conditions("True", "False").await?;
        self.show_status().await?;
        self.no_restarts().await
    }

    /// Step 4.
    pub async fn survives_deletion(&mut self) -> anyhow::Result<()> {
        self.delete_service().await?;
        let both = self.hosts.get(Caller::Anonymous).await;
        self.report.note_deleted(&both);
        ensure!(both.are(403), "403 wanted: {both}");
        self.await_conditions("False", "True").await?;
        self.proxies_are_valid().await?;

        let before = self.edge.pods(Component::Contour).await?.uids();
        let selector = format!(
            "{},{}={}",
            self.edge.selector(),
            slipway_e2e::edge::COMPONENT,
            Component::Contour.label()
        );
        let deletion = [
            "-n",
            self.edge.namespace(),
            "delete",
            "pods",
            "-l",
            &selector,
            "--wait=false",
        ];
        show(&self.kubectl().run(&deletion).await?);
        let edge = &self.edge;
        let back = Wait::for_it("other pods of Contour are ready")
            .within(ROLLOUT)
            .until(async || {
                let pods = edge.pods(Component::Contour).await?;
                let other = pods.uids().is_disjoint(&before);
                Ok(Look::when(
                    other && pods.all_ready() && pods.ending == 0,
                    format!("{pods}, {} ending", pods.ending),
                ))
            });
        let ((), watched) = self.hosts.watch_until(back).await?;
        say(format!("meanwhile: {watched}"));
        watched.only(&[403])?;
        self.hosts.until(Caller::Authorized, 403).await?;
        self.no_restarts().await
    }

    /// Step 5, and `more` measurements of the same.
    pub async fn enforces_again(&mut self, more: usize) -> anyhow::Result<()> {
        self.await_conditions("False", "True").await?;
        let before = self.edge.rolled_state().await?;
        // Contour's pods are new. Only their leader writes verdicts, and it may take some seconds to become one.
        self.create_and_measure().await?;
        self.await_conditions("True", "False").await?;
        let mut measured = Vec::new();
        for _ in 0..more {
            self.delete_service().await?;
            self.await_conditions("False", "True").await?;
            // Contour holds an update back for 100 ms if its last one is not half a second ago (`internal/contour/handler.go`,
            // v1.33). A service that comes half a second after it went is not what is measured.
            tokio::time::sleep(HOLD_OFF).await;
            measured.push(self.create_and_measure().await?);
            self.await_conditions("True", "False").await?;
        }
        ensure!(
            before == self.edge.rolled_state().await?,
            "something was rolled: {before:?} before"
        );
        say("no pod was made or ended, Contour's Deployment has the same revision");
        self.no_restarts().await?;
        if more > 0 {
            measured.extend(self.report.enforced_after_ms);
            let median = report::median(&measured);
            say(format!(
                "enforced after {measured:?} ms, median {}",
                median.unwrap_or_default()
            ));
            self.report.enforced_after_ms_median = median;
            self.report.enforced_after_ms_runs = measured;
        }
        Ok(())
    }

    /// Step 6.
    pub async fn fails_open(&mut self) -> anyhow::Result<()> {
        let before = self.edge.revision().await?;
        let patch = r#"{"spec":{"runtimeSettings":{"globalExtAuth":{"failOpen":true}}}}"#;
        let arguments = [
            "-n",
            self.edge.namespace(),
            "patch",
            "cdep",
            self.edge.name(),
            "--type=merge",
            "-p",
            patch,
        ];
        show(&self.kubectl().run(&arguments).await?);
        let edge = &self.edge;
        Wait::for_it("a Contour with failOpen is rolled out")
            .within(ROLLOUT)
            .until(async || {
                let revision = edge.revision().await?;
                if revision == before {
                    return Ok(Look::NotYet(format!("its Deployment is still at revision {revision}")));
                }
                Ok(match edge.look_settled().await? {
                    Look::Reached(status) => Look::when(status.is("Ready", "True"), status.to_string()),
                    Look::NotYet(seen) => Look::NotYet(seen),
                })
            })
            .await?;
        self.service.delete().await?;
        say("the ExtensionService is deleted");
        // An Envoy that has yet to move to the new Contour denies for a moment longer.
        let both = self.hosts.change(Caller::Anonymous, &[401, 403], 200).await?;
        self.report.note_fail_open(&both);
        self.await_conditions("True", "True").await?;
        self.show_status().await?;

        say("kubectl delete namespace auth");
        let deletion = ["delete", "namespace", "auth", "--timeout=120s"];
        let (printed, watched) = self.hosts.watch_until(self.kubectl().run(&deletion)).await?;
        show(&printed);
        say(format!("meanwhile: {watched}"));
        watched.only(&[200])?;
        self.await_conditions("True", "True").await?;
        let both = self.hosts.get(Caller::Anonymous).await;
        ensure!(both.are(200), "200 wanted: {both}");
        self.no_restarts().await
    }

    /// Step 7.
    pub async fn shows_stock(&mut self) -> anyhow::Result<()> {
        let line = stock::crash_line(self.kubectl()).await?;
        show(&self.kubectl().run(&["-n", "stock", "get", "pods"]).await?);
        show(&line);
        ensure!(
            line.contains("error getting extension service auth/auth"),
            "it crashed for another reason"
        );
        self.report.stock_log_line = Some(line);
        stock::remove(self.kubectl()).await
    }

    /// Step 8.
    pub async fn leaves_nothing(&mut self) -> anyhow::Result<()> {
        let before = leftovers::of(&self.client, &self.edge).await?;
        say(format!("there are {} objects of it", before.len()));
        self.edge.delete().await?;
        let (client, edge, left) = (&self.client, &self.edge, &mut self.report.objects_left);
        Wait::for_it("nothing of it is left (Envoy pods that drain excepted)")
            .until(async || {
                let found: Vec<_> = leftovers::of(client, edge).await?.into_iter().collect();
                let look = Look::when(found.is_empty(), format!("{} left: {}", found.len(), found.join(", ")));
                *left = Some(found);
                Ok(look)
            })
            .await
    }

    /// Creates the ExtensionService; returns the milliseconds until both hosts enforce.
    async fn create_and_measure(&self) -> anyhow::Result<u64> {
        let sent = self.service.create().await?;
        let taken = self.hosts.enforced_since(sent).await?;
        let taken = u64::try_from(taken.as_millis()).context("an absurd time")?;
        say(format!(
            "the ExtensionService is created; both hosts enforce {taken} ms after the request was sent"
        ));
        Ok(taken)
    }

    /// Deletes the ExtensionService and waits until both hosts deny everybody, with nothing broken on the way.
    async fn delete_service(&self) -> anyhow::Result<()> {
        self.service.delete().await?;
        say("the ExtensionService is deleted");
        self.hosts.change(Caller::Anonymous, &[401], 403).await?;
        self.hosts.change(Caller::Authorized, &[200], 403).await?;
        Ok(())
    }

    async fn await_conditions(&self, ready: &str, degraded: &str) -> anyhow::Result<Status> {
        Wait::for_it(format!("it is settled with Ready {ready}, Degraded {degraded}"))
            .within(ROLLOUT)
            .until(async || {
                Ok(match self.edge.look_settled().await? {
                    Look::Reached(status) if status.is("Ready", ready) && status.is("Degraded", degraded) => {
                        Look::Reached(status)
                    }
                    Look::Reached(status) => Look::NotYet(status.to_string()),
                    Look::NotYet(seen) => Look::NotYet(seen),
                })
            })
            .await
    }

    async fn show_status(&self) -> anyhow::Result<()> {
        say("kubectl get cdep --all-namespaces");
        show(&self.kubectl().run(&["get", "cdep", "--all-namespaces"]).await?);
        Ok(())
    }

    async fn proxies_are_valid(&self) -> anyhow::Result<()> {
        let proxies = self.kubectl().json(&["-n", "demo", "get", "httpproxies"]).await?;
        let proxies = proxies["items"].as_array().context("a list of HTTPProxies")?;
        ensure!(proxies.len() == 2, "two HTTPProxies wanted, not {}", proxies.len());
        for proxy in proxies {
            ensure!(
                proxy["status"]["currentStatus"] == "valid",
                "an HTTPProxy is not valid: {}",
                proxy["status"]
            );
        }
        say("both HTTPProxies are valid");
        Ok(())
    }

    async fn no_restarts(&mut self) -> anyhow::Result<()> {
        let contour = self.edge.pods(Component::Contour).await?;
        let envoy = self.edge.pods(Component::Envoy).await?;
        self.report.note_restarts(contour.restarts);
        say(format!("Contour: {contour}; Envoy: {envoy}"));
        ensure!(contour.restarts == 0 && envoy.restarts == 0, "a container restarted");
        Ok(())
    }
}
