//! The API server's audit log: the user and time of each request, by the API server's own clock. Tests, proofs and the benchmark read the
//! operator's requests from the log, so the observation costs neither the operator nor the API server a request.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;

use crate::cluster::testbed;
use crate::installation::SLIPWAY_NAMESPACE;
use crate::wait::{Look, Wait};

/// The audit log of one cluster.
#[derive(Clone, Debug)]
pub struct AuditLog(PathBuf);

/// A position in the log; [`AuditLog::lines`] and [`AuditLog::since`] return the later entries.
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

/// The object of a request.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Reference {
    /// The resource: plural, lower case.
    pub resource: String,
    /// The subresource, for example `status`.
    pub subresource: String,
    /// The namespace; empty for cluster-scoped objects.
    pub namespace: String,
    /// The name; empty if the request was about several objects.
    pub name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    code: u16,
}

impl AuditLog {
    /// Returns the audit log of the cluster of this name.
    pub async fn of(cluster: &str) -> anyhow::Result<Self> {
        let kubeconfig = testbed(&["kubeconfig", cluster]).await?;
        let folder = Path::new(kubeconfig.trim()).parent();
        Ok(Self::within(folder.context("the kubeconfig has no folder")?))
    }

    /// Returns the audit log of the cluster with its state in this folder.
    pub fn within(folder: &Path) -> Self {
        Self(folder.join("audit.log"))
    }

    /// Returns the present end of the log.
    pub fn mark(&self) -> anyhow::Result<Mark> {
        let metadata = std::fs::metadata(&self.0).context("reading the size of the audit log")?;
        Ok(Mark(metadata.len()))
    }

    /// Returns the entries since `mark`: one line of JSON for each.
    ///
    /// The API server starts a new file after 1000 MB, which is far more than one run writes.
    pub fn lines(&self, mark: Mark) -> anyhow::Result<Vec<String>> {
        let mut file = File::open(&self.0).context("opening the audit log")?;
        file.seek(SeekFrom::Start(mark.0)).context("reading the audit log")?;
        let mut text = String::new();
        file.read_to_string(&mut text).context("reading the audit log")?;
        // The last line may be incomplete. The first line may be the rest of a line that was incomplete at the mark.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines = whole.lines().filter(|line| line.starts_with('{'));
        Ok(lines.map(str::to_owned).collect())
    }

    /// Returns the requests since `mark` with their responses. A watch also has an entry for its start.
    pub fn since(&self, mark: Mark) -> anyhow::Result<Vec<Request>> {
        let lines = self.lines(mark)?.into_iter();
        lines
            .map(|line| serde_json::from_str(&line).context("reading a line of the audit log"))
            .collect()
    }

    /// Returns the operator's requests since `mark`, without watches.
    pub fn operator_since(&self, mark: Mark) -> anyhow::Result<Vec<Request>> {
        let mut requests = self.since(mark)?;
        requests.retain(|request| request.is_of_operator() && request.verb != "watch");
        Ok(requests)
    }

    /// Waits until neither the operator nor a Contour has sent a request for `span`, except for leases. Returns whether that happened
    /// within `limit`.
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
                Ok(Look::when(since.elapsed() >= span, "one of them sends requests"))
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
    /// Returns the object of the request.
    pub fn about(&self) -> &Reference {
        &self.object_ref
    }

    /// Returns the verb: `get`, `list`, `create`, `patch`, …
    pub fn verb(&self) -> &str {
        &self.verb
    }

    /// Returns the HTTP status.
    pub fn code(&self) -> u16 {
        self.response_status.code
    }

    /// Reports whether the operator sent the request.
    pub fn is_of_operator(&self) -> bool {
        self.user.username == format!("system:serviceaccount:{SLIPWAY_NAMESPACE}:slipway")
    }

    /// Reports whether the request shows that the operator or a Contour is busy.
    fn is_a_sign_of_life(&self) -> bool {
        let account = self.user.username.strip_prefix("system:serviceaccount:");
        let is_of_contour = account.is_some_and(|account| account.ends_with("-contour"));
        (self.is_of_operator() || is_of_contour) && self.verb != "watch" && self.object_ref.resource != "leases"
    }

    /// Reports whether the request is a write (a dry run is not).
    pub fn is_write(&self) -> bool {
        ["create", "update", "patch", "delete", "deletecollection"].contains(&self.verb.as_str())
            && !self.uri.contains("dryRun=All")
    }

    /// Reports whether the request wrote an object that is neither an Event nor a status.
    pub fn wrote_object(&self) -> bool {
        self.is_write()
            && self.succeeded()
            && self.object_ref.resource != "events"
            && self.object_ref.subresource.is_empty()
    }

    /// Reports whether the request created an object that is not an Event.
    pub fn created_object(&self) -> bool {
        self.verb == "create" && self.wrote_object()
    }

    /// Reports whether the request succeeded.
    pub fn succeeded(&self) -> bool {
        (200..300).contains(&self.response_status.code)
    }

    /// Returns the time when the API server received the request.
    pub fn received(&self) -> Timestamp {
        self.received.0
    }

    /// Returns the time when the API server had answered the request.
    pub fn answered(&self) -> Timestamp {
        self.answered.0
    }
}

/// Returns the time from one moment to a later one; zero if `to` is not later.
pub fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}
