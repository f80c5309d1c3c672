//! The measurements, step by step.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use serde_json::json;
use slipway_e2e::cluster::Cluster;
use slipway_e2e::installation::SLIPWAY_NAMESPACE;
use slipway_e2e::narration::say;
use tokio::time::Instant;

use crate::baseline::Baseline;
use crate::crowd::{self, Crowd};
use crate::process::Operator;
use crate::table::{Row, Table};
use crate::traffic::Traffic;
use slipway_e2e::audit::{AuditLog, Mark, Request, between};
use slipway_e2e::numbers::{list, mebibytes, median, millis, percentile, seconds};

/// The time without a request after which the operator counts as settled.
const QUIET: Duration = Duration::from_secs(5);
/// The quiet time before a reaction. Contour applies a change immediately only if its last change was at least half a second ago.
/// Otherwise Contour delays the change by 100 ms (Contour v1.33, `internal/contour/handler.go`). In practice, a service also changes
/// after a quiet time.
const CALM: Duration = Duration::from_secs(1);
/// The time limit for settling.
const PATIENCE: Duration = Duration::from_mins(3);
/// The observation time of the idle operator. This time is the measurement itself, not a wait.
const OBSERVED: Duration = Duration::from_secs(20);
/// The number of single ContourDeployments that are built one after the other.
const SINGLES: usize = 5;
/// The number of rollouts for the measurement of the gate.
const GATES: usize = 3;
/// The number of namespaces of the crowd.
const NAMESPACES: usize = 10;

/// One run of the benchmark.
pub struct Bench<'a> {
    cluster: &'a Cluster,
    client: Client,
    audit: AuditLog,
    table: &'a mut Table,
    baseline: Option<Baseline>,
}

impl<'a> Bench<'a> {
    /// Starts a run. The cluster must have Slipway and no ContourDeployment.
    pub async fn start(name: &str, cluster: &'a Cluster, table: &'a mut Table) -> anyhow::Result<Self> {
        let client = cluster.client().await?;
        let present = crowd::present(&client).await?;
        ensure!(
            present.is_empty(),
            "ContourDeployments already exist ({}); the benchmark needs a new cluster",
            present.join(", ")
        );
        let load = std::fs::read_to_string("/proc/loadavg").context("reading the load of this machine")?;
        let load = load.split_whitespace().next().unwrap_or("unknown");
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        table.remark(format!(
            "{cores} cores; load of the machine at the start (1 min): {load}"
        ));
        Ok(Self {
            cluster,
            client,
            audit: AuditLog::of(name).await?,
            table,
            baseline: None,
        })
    }

    fn latency(&self) -> anyhow::Result<Duration> {
        Ok(self.baseline.context("the baseline has not been measured")?.latency)
    }

    /// Formats a duration as a multiple of L.
    fn multiple(&self, duration: Duration) -> anyhow::Result<String> {
        Ok(format!("{:.1} L", seconds(duration) / seconds(self.latency()?)))
    }

    /// Measures L and X.
    pub async fn baseline(&mut self) -> anyhow::Result<()> {
        let measured = Baseline::measure(self.cluster).await?;
        let (p50, p99) = (millis(measured.latency), millis(measured.latency_p99));
        say(format!("L = {p50} ms (p99 {p99} ms), X = {:.0}/s", measured.rate));
        self.table.add(
            Row::new(
                "bare apply of a Deployment, 1 client",
                format!("p50 {p50} ms, p99 {p99} ms"),
                json!({"p50_ms": p50, "p99_ms": p99}),
            )
            .beside("L"),
        );
        self.table.add(
            Row::new(
                "the same, 8 clients",
                format!("{:.0}/s", measured.rate),
                json!({"per_second": measured.rate}),
            )
            .beside("X"),
        );
        self.baseline = Some(measured);
        Ok(())
    }

    /// Measures the baseline again and compares it with the first measurement.
    pub async fn drift(&mut self) -> anyhow::Result<()> {
        let before = self.baseline.context("the baseline has not been measured")?;
        let now = Baseline::measure(self.cluster).await?;
        let (latency, rate) = (seconds(now.latency) / seconds(before.latency), now.rate / before.rate);
        self.table.add(
            Row::new(
                "the baseline at the end of the run",
                format!("p50 {} ms, {:.0}/s", millis(now.latency), now.rate),
                json!({"p50_ms": millis(now.latency), "p99_ms": millis(now.latency_p99), "per_second": now.rate}),
            )
            .beside(format!("{latency:.2} L, {rate:.2} X")),
        );
        let calm = 0.75..1.33;
        if !(calm.contains(&latency) && calm.contains(&rate)) {
            self.table.remark(
                "NOISY: the baseline changed by more than a quarter during the run; another process used this machine. \
                 Don't compare these figures with those of another run.",
            );
        }
        Ok(())
    }

    /// Waits until the operator is quiet. Adds a remark if that does not happen in time.
    async fn settle(&mut self, when: &str) -> anyhow::Result<()> {
        if !self.audit.quiet(QUIET, PATIENCE).await? {
            self.table.remark(format!(
                "{when} the operator was never quiet for {} s within {} s",
                QUIET.as_secs(),
                PATIENCE.as_secs()
            ));
        }
        Ok(())
    }

    /// Measures the operator's memory after the operator is quiet.
    pub async fn memory(&mut self, what: &str, goal: &str) -> anyhow::Result<()> {
        self.settle(what).await?;
        let memory = Operator::find(&self.client).await?.memory()?;
        let measured = format!(
            "{} ({} without the binary's pages; peak {})",
            mebibytes(memory.resident),
            mebibytes(memory.anonymous),
            mebibytes(memory.peak)
        );
        say(format!("{what}: {measured}"));
        let values = json!({
            "resident_bytes": memory.resident, "anonymous_bytes": memory.anonymous, "peak_bytes": memory.peak,
        });
        self.table.add(Row::new(what, measured, values).goal(goal));
        Ok(())
    }

    /// Measures the sample with traffic: reaction, gate, and memory with one ContourDeployment.
    pub async fn reactions(&mut self, runs: usize) -> anyhow::Result<()> {
        let traffic = Traffic::start(self.cluster).await?;
        say("the sample runs, and both hosts deny all requests");
        let mut reactions = Vec::new();
        for _ in 0..runs {
            self.audit.quiet(CALM, PATIENCE).await?;
            reactions.push(traffic.reaction().await?);
        }
        let enforced: Vec<_> = reactions.iter().map(|it| it.enforced).collect();
        self.times(
            "ExtensionService created → enforced on both hosts",
            &enforced,
            "median ≤ 150 ms",
        )?;
        let verdict: Vec<_> = reactions.iter().map(|it| it.verdict).collect();
        self.times("  of it: created → Contour's verdict", &verdict, "")?;
        let copied: Vec<_> = reactions
            .iter()
            .map(|it| it.copied.saturating_sub(it.verdict))
            .collect();
        self.times("  of it: verdict → the stand-in carries the copy", &copied, "p50 ≤ 2 L")?;
        let rest: Vec<_> = reactions
            .iter()
            .map(|it| it.enforced.saturating_sub(it.copied))
            .collect();
        self.times("  of it: copy → enforced (Contour's hold-off, Envoy)", &rest, "")?;
        self.memory("RSS, 1 ContourDeployment", "").await?;

        let levels = [["debug", "debug"], ["info", "info"]];
        let mut gates = Vec::new();
        for levels in levels.into_iter().cycle().take(GATES) {
            gates.push(traffic.gate(levels).await?);
        }
        let known: Vec<_> = gates.iter().copied().flatten().collect();
        if known.len() < gates.len() {
            let unknown = gates.len() - known.len();
            self.table.remark(format!(
                "in {unknown} of {} rollouts the watches reported Envoy's write before the opening of the gate",
                gates.len()
            ));
        }
        if !known.is_empty() {
            self.times("gate open → Envoy written", &known, "≤ 2 L")?;
        }
        traffic.end(self.cluster).await
    }

    fn times(&mut self, what: &str, values: &[Duration], goal: &str) -> anyhow::Result<()> {
        let middle = median(values);
        let all: Vec<_> = values.iter().copied().map(millis).collect();
        let row = Row::new(
            what,
            format!("median {:.1} ms of {}", millis(middle), list(values)),
            json!({"median_ms": millis(middle), "all_ms": all}),
        );
        let row = row.beside(self.multiple(middle)?).goal(goal);
        self.table.add(row);
        Ok(())
    }

    /// Measures the time from the creation request of a ContourDeployment to the response to the operator's last creation for it.
    pub async fn single(&mut self) -> anyhow::Result<()> {
        self.settle("before the ContourDeployments from nothing").await?;
        let (mut taken, mut objects) = (Vec::new(), 0);
        for number in 0..SINGLES {
            let crowd = Crowd::prepare(&self.client, &format!("bench-single-{number}"), 1, 1).await?;
            let mark = self.audit.mark()?;
            crowd.create().await?;
            crowd.until_built(PATIENCE).await?;
            let built = Built::read(&self.audit, mark)?;
            say(format!("{built}, after {:.1} ms", millis(built.taken())));
            taken.push(built.taken());
            objects = built.objects;
            crowd.delete().await?;
            crowd.until_gone(PATIENCE).await?;
            crowd.delete_namespaces().await?;
        }
        self.times(
            &format!("1 ContourDeployment from nothing to its last object ({objects} objects)"),
            &taken,
            "≤ 12 L",
        )
    }

    /// Measures a crowd: throughput, memory, the costs of idling and of a restart, and the deletion.
    pub async fn crowd(&mut self, count: usize) -> anyhow::Result<()> {
        let crowd = Crowd::prepare(&self.client, "bench-many", count, NAMESPACES.min(count)).await?;
        self.settle("before the many ContourDeployments").await?;
        let limit = PATIENCE + Duration::from_secs(2) * u32::try_from(count).unwrap_or(1000);
        self.build(&crowd, limit).await?;
        let goal = if count == 1000 {
            "≤ 40 MiB"
        } else {
            "≤ 40 MiB with 1000"
        };
        self.memory(&format!("RSS, {count} ContourDeployments"), goal).await?;
        self.idle(count).await?;
        self.restart(count).await?;
        self.memory(&format!("RSS, {count} ContourDeployments, after the restart"), goal)
            .await?;
        self.remove(crowd, limit).await?;
        self.memory("RSS, after all of them were deleted", "").await?;

        // The allocator may keep freed memory for reuse, or memory may leak. A second round shows the difference: only a leak grows.
        let crowd = Crowd::prepare(&self.client, "bench-again", count, NAMESPACES.min(count)).await?;
        crowd.create().await?;
        crowd.until_built(limit).await?;
        self.settle("in the second round").await?;
        crowd.delete().await?;
        crowd.until_gone(limit).await?;
        self.memory("RSS, after a second round of the same", "").await?;
        crowd.delete_namespaces().await
    }

    async fn build(&mut self, crowd: &Crowd, limit: Duration) -> anyhow::Result<()> {
        let count = crowd.len();
        let before = Operator::find(&self.client).await?.cpu()?;
        let mark = self.audit.mark()?;
        crowd.create().await?;
        say(format!("{count} ContourDeployments are created"));
        crowd.until_built(limit).await?;
        let built = Built::read(&self.audit, mark)?;
        self.settle("after the many were built").await?;
        let cpu = Operator::find(&self.client).await?.cpu()?.saturating_sub(before);
        let requests = self.audit.operator_since(mark)?;
        let refused = requests.iter().filter(|it| it.is_write() && !it.succeeded()).count();
        let status = requests.iter().filter(|it| it.about().subresource == "status").count();
        let reads = requests.iter().filter(|it| !it.is_write()).count();
        let taken = seconds(built.taken());
        let ceiling = self.baseline.context("the baseline has not been measured")?.rate;
        #[allow(clippy::cast_precision_loss)] // Some thousands.
        let [rate, everybody, per_object] = [
            built.objects as f64 / taken,
            built.writes as f64 / taken,
            millis(cpu) / count as f64,
        ];
        say(format!("{built}, after {taken:.1} s"));
        self.table.add(
            Row::new(
                format!("{count} ContourDeployments, all objects"),
                format!("{:.1} s, {} objects, {rate:.0}/s", taken, built.objects),
                json!({"seconds": taken, "objects": built.objects, "per_second": rate}),
            )
            .beside(format!("{:.0} % of X", 100.0 * rate / ceiling))
            .goal("≥ 80 % of X with 1000"),
        );
        self.table.add(
            Row::new(
                "  all writes in that time",
                format!(
                    "{} ({everybody:.0}/s), Kubernetes' controllers and Events included",
                    built.writes
                ),
                json!({"writes": built.writes, "per_second": everybody}),
            )
            .beside(format!("{:.0} % of X", 100.0 * everybody / ceiling)),
        );
        self.table.add(Row::new(
            "  the operator's requests until it was quiet",
            format!(
                "{} ({reads} reads and dry runs, {status} of status, {refused} refused writes), CPU {per_object:.1} ms each",
                requests.len()
            ),
            json!({
                "requests": requests.len(), "reads": reads, "status_writes": status, "refused_writes": refused,
                "cpu_ms_per_contourdeployment": per_object,
            }),
        ));
        Ok(())
    }

    /// Measures the requests and CPU time of the idle operator.
    async fn idle(&mut self, count: usize) -> anyhow::Result<()> {
        let operator = Operator::find(&self.client).await?;
        say(format!("observing the idle operator for {} s", OBSERVED.as_secs()));
        let (mark, start, before) = (self.audit.mark()?, Instant::now(), operator.cpu()?);
        tokio::time::sleep(OBSERVED).await;
        let (cpu, taken) = (operator.cpu()?.saturating_sub(before), start.elapsed());
        let requests = self.audit.operator_since(mark)?;
        for request in requests.iter().take(5) {
            say(format!("request: {}", described(request)));
        }
        let millicores = 1000.0 * seconds(cpu) / seconds(taken);
        self.table.add(
            Row::new(
                format!(
                    "idle for {} s, {count} ContourDeployments: requests",
                    OBSERVED.as_secs()
                ),
                format!("{} (watches left out)", requests.len()),
                json!({"requests": requests.len()}),
            )
            .goal("0"),
        );
        self.table.add(
            Row::new(
                "  CPU in that time",
                format!("{millicores:.1} ms per s"),
                json!({"millicores": millicores}),
            )
            .goal("≤ 2 ms per s"),
        );
        Ok(())
    }

    async fn restart(&mut self, count: usize) -> anyhow::Result<()> {
        let mark = self.audit.mark()?;
        let kubectl = self.cluster.kubectl();
        let rollout = |verb| ["-n", SLIPWAY_NAMESPACE, "rollout", verb, "deployment/slipway"];
        kubectl.run(&rollout("restart")).await.context("restarting Slipway")?;
        kubectl
            .run(&rollout("status"))
            .await
            .context("waiting for Slipway's Deployment")?;
        self.settle("after the restart").await?;
        let operator = Operator::find(&self.client).await?;
        let requests = self.audit.operator_since(mark)?;
        let writes: Vec<_> = requests.iter().filter(|it| it.is_write()).collect();
        for write in writes.iter().take(5) {
            say(format!("write: {}", described(write)));
        }
        let cpu = millis(operator.cpu()?);
        self.table.add(
            Row::new(
                format!("restart, {count} ContourDeployments: writes"),
                format!(
                    "{} ({} reads, watches left out; CPU {cpu:.0} ms until it was quiet)",
                    writes.len(),
                    requests.len() - writes.len()
                ),
                json!({"writes": writes.len(), "reads": requests.len() - writes.len(), "cpu_ms": cpu}),
            )
            .goal("0"),
        );
        Ok(())
    }

    async fn remove(&mut self, crowd: Crowd, limit: Duration) -> anyhow::Result<()> {
        let count = crowd.len();
        let start = Instant::now();
        crowd.delete().await?;
        crowd.until_gone(limit).await?;
        let gone = seconds(start.elapsed());
        crowd.until_nothing_is_left(limit).await?;
        let nothing = seconds(start.elapsed());
        say(format!(
            "no ContourDeployment left after {gone:.1} s, no object of them left after {nothing:.1} s"
        ));
        self.table.add(Row::new(
            format!("{count} ContourDeployments deleted"),
            format!(
                "{gone:.1} s until no ContourDeployment is left, {nothing:.1} s until none of their objects is left"
            ),
            json!({"gone_seconds": gone, "nothing_left_seconds": nothing}),
        ));
        crowd.delete_namespaces().await
    }
}

/// The audit log's record of the creation of one ContourDeployment or of many.
struct Built {
    asked: Timestamp,
    last: Timestamp,
    last_kind: String,
    objects: usize,
    /// The median duration of one creation in the API server.
    each: Duration,
    /// The number of writes of all users in that time, including Kubernetes' controllers and Events.
    writes: usize,
}

impl Built {
    fn read(audit: &AuditLog, mark: Mark) -> anyhow::Result<Self> {
        let requests = audit.since(mark)?;
        let asked = requests
            .iter()
            .filter(|it| !it.is_of_operator() && it.about().resource == "contourdeployments" && it.created_object())
            .map(Request::received)
            .min()
            .context("no ContourDeployment was created")?;
        let made = requests.iter().filter(|it| it.is_of_operator() && it.created_object());
        let last = made.clone().max_by_key(|it| it.answered());
        let last = last.context("the operator created nothing")?;
        let mut each: Vec<_> = made.clone().map(|it| between(it.received(), it.answered())).collect();
        each.sort_unstable();
        let span = asked..=last.answered();
        let writes = requests
            .iter()
            .filter(|it| it.is_write() && span.contains(&it.answered()))
            .count();
        Ok(Self {
            writes,
            asked,
            last: last.answered(),
            last_kind: last.about().resource.clone(),
            objects: each.len(),
            each: percentile(&each, 50),
        })
    }

    fn taken(&self) -> Duration {
        between(self.asked, self.last)
    }
}

impl std::fmt::Display for Built {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} objects, the last one of {}, each {:.1} ms in the API server (p50)",
            self.objects,
            self.last_kind,
            millis(self.each)
        )
    }
}

fn described(request: &Request) -> String {
    let about = request.about();
    format!(
        "{} {}{}{} {}/{} → {}",
        request.verb(),
        about.resource,
        if about.subresource.is_empty() { "" } else { "/" },
        about.subresource,
        about.namespace,
        about.name,
        request.code()
    )
}
