//! What the operator has written, read from the audit log once for all cases: for each of them to read all of it, again and again,
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
    /// The beginning of a line that was not complete yet.
    rest: String,
    writes: Vec<Write>,
}

/// One request of the operator's that changes something, or would.
#[derive(Clone, Debug)]
pub struct Write {
    /// When it was read.
    seen: Instant,
    verb: String,
    /// The resource, and the subresource if there is one: `contourdeployments/status`.
    resource: String,
    namespace: String,
    /// Empty for a creation that was refused.
    name: String,
    code: i64,
}

/// A moment in the ledger.
#[derive(Clone, Copy, Debug)]
pub struct Moment(usize);

impl Ledger {
    /// Begins with what is in the log already.
    pub fn begin(audit_log: &Path) -> anyhow::Result<()> {
        let log = File::open(audit_log).with_context(|| format!("opening {}", audit_log.display()))?;
        let ledger = Self {
            log: BufReader::new(log),
            rest: String::new(),
            writes: Vec::new(),
        };
        LEDGER
            .set(Mutex::new(ledger))
            .ok()
            .context("there is one ledger already")
    }

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
    fn of(entry: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let object = &entry["objectRef"];
        let is_dry_run = entry["requestURI"].as_str().is_some_and(|uri| uri.contains("dryRun="));
        let changes = ["create", "update", "patch", "delete", "deletecollection"];
        let is_write = changes.iter().any(|verb| entry["verb"] == *verb) && entry["stage"] == "ResponseComplete";
        // An event tells people of what was done; it changes nothing.
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

    fn concerns(&self, namespace: &str) -> bool {
        // `here`, `here-auth`, and a ClusterRoleBinding `slipway:here:edge:contour`.
        let own = self.namespace == namespace || self.namespace.starts_with(&format!("{namespace}-"));
        own || (self.namespace.is_empty() && self.name.contains(&format!(":{namespace}:")))
    }

    /// The object, as far as the log names it.
    pub fn object(&self) -> String {
        format!("{} {}/{}", self.resource, self.namespace, self.name)
    }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.verb, self.object(), self.code)
    }
}

fn with<T>(ask: impl FnOnce(&Ledger) -> T) -> anyhow::Result<T> {
    let ledger = LEDGER.get().context("there is no ledger yet")?;
    let mut ledger = ledger.lock().expect("nobody panics with the lock");
    ledger.read().context("reading the audit log")?;
    Ok(ask(&ledger))
}

/// Now.
pub fn now() -> anyhow::Result<Moment> {
    with(|ledger| Moment(ledger.writes.len()))
}

/// What was written since then to what is in a namespace, or in those whose names begin with its name.
pub fn since(moment: Moment, namespace: &str) -> anyhow::Result<Vec<Write>> {
    with(|ledger| {
        let since = ledger.writes[moment.0..].iter();
        since.filter(|write| write.concerns(namespace)).cloned().collect()
    })
}

/// How long nothing has been written there, if anything was since then.
pub fn silence(moment: Moment, namespace: &str) -> anyhow::Result<Option<Duration>> {
    let writes = since(moment, namespace)?;
    Ok(writes.last().map(|last| last.seen.elapsed()))
}

/// How often each object was written.
pub fn by_object(writes: &[Write]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for write in writes {
        *counts.entry(write.object()).or_default() += 1;
    }
    counts
}

/// The objects that were written most, for messages.
pub fn busiest(writes: &[Write]) -> String {
    let mut counts: Vec<_> = by_object(writes).into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let mut told: Vec<_> = counts
        .iter()
        .take(5)
        .map(|(object, count)| format!("{count} × {object}"))
        .collect();
    if let Some(last) = writes.last() {
        told.push(format!("the last: {last}"));
    }
    format!("{} writes: {}", writes.len(), told.join(", "))
}
