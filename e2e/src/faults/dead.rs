//! Connections that die without notice. Firewall rules in the API server's own network namespace drop the packets of the
//! operator's existing connections; new connections work. Here the operator connects to the API server directly, because a
//! proxy in between would react to the death itself.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::command;
use crate::lab::operator::{self, Operator};
use crate::lab::wait;
use crate::wait::Look;

use super::stage::Stage;

/// The time limit for each wait.
const LIMIT: Duration = Duration::from_mins(2);

/// An operator with dead connections. The operator ends when this value is dropped. The rules that drop packets stay until
/// [`end`](Self::end) or until the API server ends.
#[derive(Debug)]
pub struct Dead {
    operator: Operator,
    connections: BTreeSet<Connection>,
    since: Instant,
    /// The argument of `nsenter` with the API server's network namespace.
    namespace: String,
}

/// The addresses of both ends of a connection, as `ss` prints them: here, and at the API server.
type Connection = [String; 2];

impl Dead {
    /// Replaces the operator on the seat with a new one. When the new operator is ready, drops the packets of its connections.
    pub async fn begin(stage: &Stage) -> anyhow::Result<Self> {
        stage.seat.kill();
        let setup = &stage.world.setup;
        let operator = Operator::start(setup)?;
        wait("the operator is ready", Duration::from_mins(1))
            .until(async || {
                Ok(match operator::get(setup.address, "/readyz").await {
                    Ok((200, _)) => Look::Reached(()),
                    other => Look::NotYet(format!("{other:?}")),
                })
            })
            .await?;
        let connections = connections(&operator).await?;
        let ports = connections.iter().filter_map(|[here, _]| here.rsplit_once(':'));
        let list: Vec<&str> = ports.map(|(_, port)| port).collect();
        ensure!(!list.is_empty(), "the operator has no connection that could die");
        let list = list.join(", ");
        let rules = format!(
            "table inet faults {{\n\
             chain to {{ type filter hook input priority -10; tcp dport 6443 tcp sport {{ {list} }} drop; }}\n\
             chain from {{ type filter hook output priority -10; tcp sport 6443 tcp dport {{ {list} }} drop; }}\n}}\n"
        );
        let name = stage.world.state.file_name().context("the cluster has no name")?;
        let namespace = format!("--net=/run/netns/slipway-{}", name.to_string_lossy());
        nft(&namespace, &rules).await?;
        Ok(Self {
            operator,
            connections,
            since: Instant::now(),
            namespace,
        })
    }

    /// Returns the number of dead connections.
    pub fn count(&self) -> usize {
        self.connections.len()
    }

    /// Waits until the operator has closed all dead connections and returns the time since their death.
    pub async fn noticed(&self) -> anyhow::Result<Duration> {
        loop {
            let now = connections(&self.operator).await?;
            let left: Vec<_> = now.intersection(&self.connections).collect();
            let passed = self.since.elapsed();
            if left.is_empty() {
                return Ok(passed);
            }
            if passed > LIMIT {
                bail!(
                    "{} of {} dead connections were not noticed within {LIMIT:?}",
                    left.len(),
                    self.connections.len()
                );
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Kills the operator and deletes the rules as soon as no dead connection has anything left to send.
    ///
    /// Ports are reused, so a later connection must not meet the rules. Such a connection once hung at its start. When other rules
    /// replaced these rules, the API server executed a write of an operator that had died long before.
    pub async fn end(self) -> anyhow::Result<()> {
        drop(self.operator);
        wait("no dead connection is left", LIMIT)
            .until(async || {
                let sending = sending().await?;
                let left: Vec<_> = self.connections.intersection(&sending).collect();
                Ok(Look::when(left.is_empty(), format!("left: {left:?}")))
            })
            .await?;
        nft(&self.namespace, "delete table inet faults").await
    }
}

/// Returns the operator's connections to the API server.
async fn connections(operator: &Operator) -> anyhow::Result<BTreeSet<Connection>> {
    let printed =
        command::watched(Command::new("ss").args(["-tnpH", "state", "established", "dport", "=", ":6443"])).await?;
    let its = format!("pid={},", operator.pid());
    let lines = printed.lines().filter(|line| line.contains(&its));
    Ok(lines.filter_map(|line| connection(line, 2)).collect())
}

/// Returns the connections of all processes to API servers on which data may still be sent. The operating system continues to send
/// after the process has exited.
async fn sending() -> anyhow::Result<BTreeSet<Connection>> {
    let printed = command::watched(Command::new("ss").args(["-tanH", "dport", "=", ":6443"])).await?;
    // A connection in SYN-SENT is new, so it is not one of the dead connections.
    let done = |line: &&str| !line.starts_with("TIME-WAIT") && !line.starts_with("SYN-SENT");
    Ok(printed
        .lines()
        .filter(done)
        .filter_map(|line| connection(line, 3))
        .collect())
}

/// Returns the two addresses in a line of `ss`, starting at this column.
fn connection(line: &str, column: usize) -> Option<Connection> {
    let mut columns = line.split_whitespace().skip(column).map(str::to_owned);
    Some([columns.next()?, columns.next()?])
}

async fn nft(namespace: &str, rules: &str) -> anyhow::Result<()> {
    let mut child = Command::new("nsenter")
        .args([namespace, "nft", "-f", "-"])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .context("starting nft")?;
    let mut input = child.stdin.take().context("nft reads its standard input")?;
    input.write_all(rules.as_bytes()).await?;
    drop(input);
    let status = child.wait().await?;
    ensure!(status.success(), "nft: {status}");
    Ok(())
}
