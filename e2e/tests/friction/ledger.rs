//! The operator's writes, read from the audit log once for all cases. If each case read the whole audit log again and again, reading
//! would take more time than everything else.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::Value;

static LEDGER: OnceLock<Mutex<Ledger>> = OnceLock::new();

/// The operator's writes.
pub struct Ledger {
    log: BufReader<File>,
    /// The beginning of an incomplete line.
    rest: String,
    writes: Vec<Write>,
}

/// One request of the operator that changes an object, or that would change an object if it were accepted.
#[derive(Clone, Debug)]
pub struct Write {
    /// The time at which the ledger read the request.
    seen: Instant,
    verb: String,
    /// The resource, with the subresource if the request has one: `contourdeployments/status`.
    resource: String,
    namespace: String,
    /// The name of the object. Empty for a refused creation.
    name: String,
    code: i64,
}

/// A moment in the ledger.
#[derive(Clone, Copy, Debug)]
pub struct Moment(usize);

impl Ledger {
    /// Creates the ledger. The ledger includes requests that are already in the log.
    pub fn begin(audit_log: &Path) -> anyhow::Result<()> {
        let log = File::open(audit_log).with_context(|| format!("opening {}", audit_log.display()))?;
        let ledger = Self {
            log: BufReader::new(log),
            rest: String::new(),
            writes: Vec::new(),
        };
        LEDGER.set(Mutex::new(ledger)).ok().context("the ledger already exists")
    }

    /// Reads the new complete lines of the log.
    fn read(&mut self) -> anyhow::Result<()> {
        while self.log.read_line(&mut self.rest)? > 0 && self.rest.ends_with('\n') {
            let line = std::mem::take(&mut self.rest);
            if line.contains("\"userAgent\":\"slipway/") {
                self.writes.extend(Write::of(&serde_json::from_str(&line)?));
            }
        }
        Ok(())
    }
}

impl Write {
    /// Returns the write of an entry of the audit log. Returns None if the entry is not a write.
    fn of(entry: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let object = &entry["objectRef"];
        let is_dry_run = entry["requestURI"].as_str().is_some_and(|uri| uri.contains("dryRun="));
        let changes = ["create", "update", "patch", "delete", "deletecollection"];
        let is_write = changes.iter().any(|verb| entry["verb"] == *verb) && entry["stage"] == "ResponseComplete";
        // Events do not count, because they only report other writes.
        (is_write && !is_dry_run && object["resource"] != "events").then(|| Self {
            seen: Instant::now(),
            verb: text(&entry["verb"]),
            resource: match object["subresource"].as_str() {
                Some(part) => format!("{}/{part}", text(&object["resource"])),
                None => text(&object["resource"]),
            },
            namespace: text(&object["namespace"]),
            name: text(&object["name"]),
            code: entry["responseStatus"]["code"].as_i64().unwrap_or_default(),
        })
    }

    /// Reports whether the object is in this namespace, in a namespace with this prefix, or belongs to a ContourDeployment there.
    fn concerns(&self, namespace: &str) -> bool {
        // For namespace `here`: `here`, `here-auth`, and a ClusterRoleBinding `slipway:here:edge:contour`.
        let own = self.namespace == namespace || self.namespace.starts_with(&format!("{namespace}-"));
        own || (self.namespace.is_empty() && self.name.contains(&format!(":{namespace}:")))
    }

    /// Returns the resource, namespace and name of the object, as far as the log contains them.
    pub fn object(&self) -> String {
        format!("{} {}/{}", self.resource, self.namespace, self.name)
    }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.verb, self.object(), self.code)
    }
}

/// Reads the new lines of the log, and calls the function with the ledger.
fn with<T>(query: impl FnOnce(&Ledger) -> T) -> anyhow::Result<T> {
    let ledger = LEDGER.get().context("the ledger does not exist yet")?;
    let mut ledger = ledger.lock().expect("no thread panics while it holds the lock");
    ledger.read().context("reading the audit log")?;
    Ok(query(&ledger))
}

/// Returns the current moment.
pub fn now() -> anyhow::Result<Moment> {
    with(|ledger| Moment(ledger.writes.len()))
}

/// Returns the writes since a moment to objects of a namespace, and of namespaces with this prefix.
pub fn since(moment: Moment, namespace: &str) -> anyhow::Result<Vec<Write>> {
    with(|ledger| {
        let since = ledger.writes[moment.0..].iter();
        since.filter(|write| write.concerns(namespace)).cloned().collect()
    })
}

/// Returns the time since the last write there. Returns None if there was no write since the moment.
pub fn silence(moment: Moment, namespace: &str) -> anyhow::Result<Option<Duration>> {
    let writes = since(moment, namespace)?;
    Ok(writes.last().map(|last| last.seen.elapsed()))
}

/// Returns the number of writes to each object.
pub fn by_object(writes: &[Write]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for write in writes {
        *counts.entry(write.object()).or_default() += 1;
    }
    counts
}

/// Describes the five objects with the most writes, and the last write, for messages.
pub fn busiest(writes: &[Write]) -> String {
    let mut counts: Vec<_> = by_object(writes).into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let mut parts: Vec<_> = counts
        .iter()
        .take(5)
        .map(|(object, count)| format!("{count} × {object}"))
        .collect();
    if let Some(last) = writes.last() {
        parts.push(format!("the last: {last}"));
    }
    format!("{} writes: {}", writes.len(), parts.join(", "))
}
