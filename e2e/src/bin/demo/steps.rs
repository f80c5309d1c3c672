//! The steps of the demo. Each step fails at the first unexpected observation.

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

/// The time limit for steps that start pods: the pods may occupy both cores of the machine.
const ROLLOUT: Duration = Duration::from_mins(2);

/// Slightly more than the longest time for which Contour delays an update.
const HOLD_OFF: Duration = Duration::from_millis(600);

/// The demo with everything installed.
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
            "namespace auth already exists; the demo needs a new cluster"
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
            "expected Ready False and Degraded True: {status}"
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
        say("namespace auth, the authorization server and its Service exist, and the server is ready");
        let edge = &self.edge;
        Wait::for_it("Contour was rolled out once, to a stand-in in namespace auth")
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
                ensure!(rolls <= 1, "Contour was rolled out {rolls} times");
                Ok(Look::when(
                    place == "auth" && rolls == 1,
                    format!("the stand-in is in {place}, {rolls} rollouts"),
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
        ensure!(anonymous.are(401) && authorized.are(200), "expected 401 and 200");
        self.await_conditions("True", "False").await?;
        self.show_status().await?;
        self.no_restarts().await
    }

    /// Step 4.
    pub async fn survives_deletion(&mut self) -> anyhow::Result<()> {
        self.delete_service().await?;
        let both = self.hosts.get(Caller::Anonymous).await;
        self.report.note_deleted(&both);
        ensure!(both.are(403), "expected 403: {both}");
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
                    format!("{pods}, {} terminating", pods.ending),
                ))
            });
        let ((), watched) = self.hosts.watch_until(back).await?;
        say(format!("meanwhile: {watched}"));
        watched.only(&[403])?;
        self.hosts.until(Caller::Authorized, 403).await?;
        self.no_restarts().await
    }

    /// Step 5, followed by `more` repetitions of the measurement.
    pub async fn enforces_again(&mut self, more: usize) -> anyhow::Result<()> {
        self.await_conditions("False", "True").await?;
        let before = self.edge.rolled_state().await?;
        // Contour's pods are new. Only their leader writes verdicts, and the election may take some seconds.
        self.create_and_measure().await?;
        self.await_conditions("True", "False").await?;
        let mut measured = Vec::new();
        for _ in 0..more {
            self.delete_service().await?;
            self.await_conditions("False", "True").await?;
            // Contour delays an update by 100 ms if its last update was less than half a second ago (`internal/contour/handler.go`, v1.33).
            // The measurement excludes an ExtensionService that is recreated within that time.
            tokio::time::sleep(HOLD_OFF).await;
            measured.push(self.create_and_measure().await?);
            self.await_conditions("True", "False").await?;
        }
        ensure!(
            before == self.edge.rolled_state().await?,
            "a component was rolled out; before: {before:?}"
        );
        say("no pod was created or deleted, and Contour's Deployment has the same revision");
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
                    return Ok(Look::NotYet(format!(
                        "Contour's Deployment is still at revision {revision}"
                    )));
                }
                Ok(match edge.look_settled().await? {
                    Look::Reached(status) => Look::when(status.is("Ready", "True"), status.to_string()),
                    Look::NotYet(seen) => Look::NotYet(seen),
                })
            })
            .await?;
        self.service.delete().await?;
        say("the ExtensionService is deleted");
        // An Envoy without a connection to the new Contour denies requests for a moment longer.
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
        ensure!(both.are(200), "expected 200: {both}");
        self.no_restarts().await
    }

    /// Step 7.
    pub async fn shows_stock(&mut self) -> anyhow::Result<()> {
        let line = stock::crash_line(self.kubectl()).await?;
        show(&self.kubectl().run(&["-n", "stock", "get", "pods"]).await?);
        show(&line);
        ensure!(
            line.contains("error getting extension service auth/auth"),
            "stock Contour crashed for another reason"
        );
        self.report.stock_log_line = Some(line);
        stock::remove(self.kubectl()).await
    }

    /// Step 8.
    pub async fn leaves_nothing(&mut self) -> anyhow::Result<()> {
        let before = leftovers::of(&self.client, &self.edge).await?;
        say(format!("the ContourDeployment has {} objects", before.len()));
        self.edge.delete().await?;
        let (client, edge, left) = (&self.client, &self.edge, &mut self.report.objects_left);
        Wait::for_it("no object of the ContourDeployment is left (except draining Envoy pods)")
            .until(async || {
                let found: Vec<_> = leftovers::of(client, edge).await?.into_iter().collect();
                let look = Look::when(found.is_empty(), format!("{} left: {}", found.len(), found.join(", ")));
                *left = Some(found);
                Ok(look)
            })
            .await
    }

    /// Creates the ExtensionService and returns the milliseconds until both hosts enforce checks.
    async fn create_and_measure(&self) -> anyhow::Result<u64> {
        let sent = self.service.create().await?;
        let taken = self.hosts.enforced_since(sent).await?;
        let taken = u64::try_from(taken.as_millis()).context("the time is too long")?;
        say(format!(
            "the ExtensionService is created; both hosts enforce {taken} ms after the request was sent"
        ));
        Ok(taken)
    }

    /// Deletes the ExtensionService and waits until both hosts deny all requests, without any interruption meanwhile.
    async fn delete_service(&self) -> anyhow::Result<()> {
        self.service.delete().await?;
        say("the ExtensionService is deleted");
        self.hosts.change(Caller::Anonymous, &[401], 403).await?;
        self.hosts.change(Caller::Authorized, &[200], 403).await?;
        Ok(())
    }

    async fn await_conditions(&self, ready: &str, degraded: &str) -> anyhow::Result<Status> {
        Wait::for_it(format!(
            "the ContourDeployment has settled with Ready {ready}, Degraded {degraded}"
        ))
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
        ensure!(proxies.len() == 2, "expected two HTTPProxies, found {}", proxies.len());
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
