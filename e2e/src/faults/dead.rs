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

/// Lets all connections of an operator die. It runs until this value goes.
#[derive(Debug)]
pub struct Dead {
    operator: Operator,
    ports: BTreeSet<u16>,
    since: Instant,
}

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
        let ports = ports(&operator).await?;
        ensure!(!ports.is_empty(), "the operator has no connection that could die");
        let list: Vec<_> = ports.iter().map(ToString::to_string).collect();
        let list = list.join(", ");
        // The chains go with the namespace; a second death replaces the first.
        let rules = format!(
            "table inet faults\ndelete table inet faults\ntable inet faults {{\n\
             chain to {{ type filter hook input priority -10; tcp dport 6443 tcp sport {{ {list} }} drop; }}\n\
             chain from {{ type filter hook output priority -10; tcp sport 6443 tcp dport {{ {list} }} drop; }}\n}}\n"
        );
        let name = stage.world.state.file_name().context("a cluster has a name")?;
        let namespace = format!("--net=/run/netns/slipway-{}", name.to_string_lossy());
        nft(&namespace, &rules).await?;
        Ok(Self {
            operator,
            ports,
            since: Instant::now(),
        })
    }

    /// How many connections died.
    pub fn count(&self) -> usize {
        self.ports.len()
    }

    /// Waits until the operator has let go of all of them; returns how long it took.
    pub async fn noticed(&self) -> anyhow::Result<Duration> {
        loop {
            let left: Vec<_> = ports(&self.operator)
                .await?
                .intersection(&self.ports)
                .copied()
                .collect();
            let passed = self.since.elapsed();
            if left.is_empty() {
                return Ok(passed);
            }
            if passed > LIMIT {
                bail!(
                    "{} of {} dead connections were not noticed within {LIMIT:?}",
                    left.len(),
                    self.ports.len()
                );
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Where the operator's connections to the API server begin.
async fn ports(operator: &Operator) -> anyhow::Result<BTreeSet<u16>> {
    let printed =
        command::watched(Command::new("ss").args(["-tnpH", "state", "established", "dport", "=", ":6443"])).await?;
    let its = format!("pid={},", operator.pid());
    let lines = printed.lines().filter(|line| line.contains(&its));
    let port = |line: &str| {
        let local = line.split_whitespace().nth(2)?;
        local.rsplit_once(':')?.1.parse().ok()
    };
    Ok(lines.filter_map(port).collect())
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
