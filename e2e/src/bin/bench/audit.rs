//! The API server's audit log: who asked for what, and when, by the API server's own clock. What the operator does is read
//! from here, so that watching it costs neither it nor the API server a request.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use slipway_e2e::cluster::testbed;
use slipway_e2e::installation::SLIPWAY_NAMESPACE;
use slipway_e2e::wait::{Look, Wait};

/// The audit log of one cluster.
#[derive(Clone, Debug)]
pub struct AuditLog(PathBuf);

/// A moment in the log: what was written after it is in [`AuditLog::since`].
#[derive(Clone, Copy, Debug)]
pub struct Mark(u64);

/// One answered request.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    verb: String,
    user: User,
    #[serde(rename = "requestURI")]
    uri: String,
    #[serde(default)]
    object_ref: Reference,
    #[serde(default)]
    response_status: Answer,
    #[serde(rename = "requestReceivedTimestamp")]
    received: MicroTime,
    #[serde(rename = "stageTimestamp")]
    answered: MicroTime,
}

#[derive(Clone, Debug, Deserialize)]
struct User {
    username: String,
}

/// What a request was about.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Reference {
    /// Plural, lower case.
    pub resource: String,
    /// `status`, for instance.
    pub subresource: String,
    /// Empty for what has none.
    pub namespace: String,
    /// Empty if the request was about many.
    pub name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    code: u16,
}

impl AuditLog {
    /// That of the cluster of this name.
    pub async fn of(cluster: &str) -> anyhow::Result<Self> {
        let kubeconfig = testbed(&["kubeconfig", cluster]).await?;
        let folder = Path::new(kubeconfig.trim()).parent();
        Ok(Self(folder.context("the kubeconfig has no folder")?.join("audit.log")))
    }

    /// The present end of the log.
    pub fn mark(&self) -> anyhow::Result<Mark> {
        let metadata = std::fs::metadata(&self.0).context("looking at the audit log")?;
        Ok(Mark(metadata.len()))
    }

    /// The requests that were answered since then; of a watch also its start.
    ///
    /// The API server starts a new file after 1000 MB, far more than a run makes.
    pub fn since(&self, mark: Mark) -> anyhow::Result<Vec<Request>> {
        let mut file = File::open(&self.0).context("opening the audit log")?;
        file.seek(SeekFrom::Start(mark.0)).context("reading the audit log")?;
        let mut text = String::new();
        file.read_to_string(&mut text).context("reading the audit log")?;
        // Its last line may be half written, and its first one is the rest of one that was at the time of the mark.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines = whole.lines().filter(|line| line.starts_with('{'));
        lines
            .map(|line| serde_json::from_str(line).context("reading a line of the audit log"))
            .collect()
    }

    /// The operator's requests since then, watches left out.
    pub fn operator_since(&self, mark: Mark) -> anyhow::Result<Vec<Request>> {
        let mut requests = self.since(mark)?;
        requests.retain(|request| request.is_of_operator() && request.verb != "watch");
        Ok(requests)
    }

    /// Waits until neither the operator nor a Contour has asked for anything for `span` (a leader's lease left out); says
    /// whether that came within `limit`.
    pub async fn quiet(&self, span: Duration, limit: Duration) -> anyhow::Result<bool> {
        let mut mark = self.mark()?;
        let mut since = tokio::time::Instant::now();
        let waited = Wait::for_it("the operator and Contour are quiet")
            .within(limit)
            .every(Duration::from_millis(200))
            .silently()
            .until(async || {
                let now = self.mark()?;
                if self.since(mark)?.iter().any(Request::is_a_sign_of_life) {
                    since = tokio::time::Instant::now();
                }
                mark = now;
                Ok(Look::when(since.elapsed() >= span, "one of them asks for something"))
            })
            .await;
        match waited {
            Ok(()) => Ok(true),
            Err(error) if error.to_string().starts_with("not within") => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Request {
    /// What it was about.
    pub fn about(&self) -> &Reference {
        &self.object_ref
    }

    /// `get`, `list`, `create`, `patch`, …
    pub fn verb(&self) -> &str {
        &self.verb
    }

    /// The HTTP status.
    pub fn code(&self) -> u16 {
        self.response_status.code
    }

    /// Whether it was the operator's.
    pub fn is_of_operator(&self) -> bool {
        self.user.username == format!("system:serviceaccount:{SLIPWAY_NAMESPACE}:slipway")
    }

    /// Whether it shows that the operator or a Contour has something to do.
    fn is_a_sign_of_life(&self) -> bool {
        let account = self.user.username.strip_prefix("system:serviceaccount:");
        let is_of_contour = account.is_some_and(|account| account.ends_with("-contour"));
        (self.is_of_operator() || is_of_contour) && self.verb != "watch" && self.object_ref.resource != "leases"
    }

    /// Whether it wanted to change something (a dry run does not).
    pub fn is_write(&self) -> bool {
        ["create", "update", "patch", "delete", "deletecollection"].contains(&self.verb.as_str())
            && !self.uri.contains("dryRun=All")
    }

    /// Whether it wrote an object that is neither an Event nor a status.
    pub fn wrote_object(&self) -> bool {
        self.is_write()
            && self.succeeded()
            && self.object_ref.resource != "events"
            && self.object_ref.subresource.is_empty()
    }

    /// Whether it made an object that is not an Event.
    pub fn created_object(&self) -> bool {
        self.verb == "create" && self.wrote_object()
    }

    /// Whether the API server did as it was asked.
    pub fn succeeded(&self) -> bool {
        (200..300).contains(&self.response_status.code)
    }

    /// When the API server got it.
    pub fn received(&self) -> Timestamp {
        self.received.0
    }

    /// When the API server had answered it.
    pub fn answered(&self) -> Timestamp {
        self.answered.0
    }
}

/// The time from one moment to a later one; none if it is not later.
pub fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}
