//! Connections that die without a word: packets of those that the operator has are dropped in the API server's own network
//! namespace, new ones pass. Here the operator speaks to the API server directly, as the proxy would answer for its death.

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

/// Longer is not waited for.
const LIMIT: Duration = Duration::from_mins(2);

/// Lets all connections of an operator die. The operator ends with this value; packets are dropped until the [end](Self::end), or
/// without that as long as there is the API server.
#[derive(Debug)]
pub struct Dead {
    operator: Operator,
    connections: BTreeSet<Connection>,
    since: Instant,
    /// Where `nsenter` finds the API server's network namespace.
    namespace: String,
}

/// Both ends of a connection, in the words of `ss`: here, and at the API server.
type Connection = [String; 2];

impl Dead {
    /// Puts an operator in the place of the one on the seat, and drops the packets of its connections once it is ready.
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
        let name = stage.world.state.file_name().context("a cluster has a name")?;
        let namespace = format!("--net=/run/netns/slipway-{}", name.to_string_lossy());
        nft(&namespace, &rules).await?;
        Ok(Self {
            operator,
            connections,
            since: Instant::now(),
            namespace,
        })
    }

    /// How many connections died.
    pub fn count(&self) -> usize {
        self.connections.len()
    }

    /// Waits until the operator has let go of all of them; returns how long it took.
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

    /// Ends it: the operator is killed; and packets are no longer dropped as soon as none of the dead connections has anything
    /// left to send. Ports are used again: a later connection must not find the rules. (One that did hung in its beginning,
    /// until these rules were replaced by others: a write of an operator that was long gone was then carried out.)
    pub async fn end(self) -> anyhow::Result<()> {
        drop(self.operator);
        wait("the dead connections are gone", LIMIT)
            .until(async || {
                let sending = sending().await?;
                let left: Vec<_> = self.connections.intersection(&sending).collect();
                Ok(Look::when(left.is_empty(), format!("left: {left:?}")))
            })
            .await?;
        nft(&self.namespace, "delete table inet faults").await
    }
}

/// The operator's connections to the API server.
async fn connections(operator: &Operator) -> anyhow::Result<BTreeSet<Connection>> {
    let printed =
        command::watched(Command::new("ss").args(["-tnpH", "state", "established", "dport", "=", ":6443"])).await?;
    let its = format!("pid={},", operator.pid());
    let lines = printed.lines().filter(|line| line.contains(&its));
    Ok(lines.filter_map(|line| connection(line, 2)).collect())
}

/// The connections to API servers, anybody's, on which something may still be sent. The operating system goes on sending when
/// the process is gone.
async fn sending() -> anyhow::Result<BTreeSet<Connection>> {
    let printed = command::watched(Command::new("ss").args(["-tanH", "dport", "=", ":6443"])).await?;
    // One that is only being opened begins with the rules, or without them, and is not one of the dead.
    let done = |line: &&str| !line.starts_with("TIME-WAIT") && !line.starts_with("SYN-SENT");
    Ok(printed
        .lines()
        .filter(done)
        .filter_map(|line| connection(line, 3))
        .collect())
}

/// The two addresses in a line of `ss`, from this column on.
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
