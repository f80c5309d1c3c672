//! The operator as a process: the real binary with the rights of its service account. The operator ends with this process at the latest.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::wait::{Look, Wait};
use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::lab::world::SYSTEM;

/// The settings that are the same for each start.
#[derive(Debug)]
pub struct Setup {
    /// The binary.
    pub binary: &'static Path,
    /// The kubeconfig with the API server and the operator's user.
    pub kubeconfig: PathBuf,
    /// The path of the log.
    pub log: PathBuf,
    /// The address that the operator listens on.
    pub address: SocketAddr,
}

/// A running operator.
#[derive(Debug)]
pub struct Operator {
    child: Child,
    /// A process that kills the operator if this process ends without doing so.
    guard: Child,
}

/// The end of a terminated operator.
#[derive(Debug)]
pub struct Exit {
    /// The exit status.
    pub status: ExitStatus,
    /// The time from the signal to the exit.
    pub took: Duration,
}

/// Returns an address with a port that is free now.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("finding a free port")?;
    listener.local_addr().context("reading the port")
}

impl Operator {
    /// Starts the operator. Does not wait until the operator is ready.
    pub fn start(setup: &Setup) -> anyhow::Result<Self> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&setup.log)
            .context("opening the operator's log")?;
        let child = Command::new(setup.binary)
            .args([
                "run",
                "--namespace",
                SYSTEM,
                "--listen",
                &setup.address.to_string(),
                "--log",
                "info,slipway=debug",
            ])
            .env("KUBECONFIG", &setup.kubeconfig)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("sharing the log")?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", setup.binary.display()))?;
        let guard = Command::new("/bin/sh")
            .args(["-c", r#"read -r _ && exit 0; kill -KILL "$0""#, &child.id().to_string()])
            .stdin(Stdio::piped())
            .spawn()
            .context("starting the process that kills the operator")?;
        Ok(Self { child, guard })
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGTERM and waits for the exit.
    pub async fn terminate(mut self) -> anyhow::Result<Exit> {
        if let Some(status) = self.child.try_wait().context("reading the state of the operator")? {
            bail!("the operator had already exited with {status}");
        }
        let asked = Instant::now();
        let pid = self.child.id().to_string();
        let sent = Command::new("kill")
            .args(["-s", "TERM", &pid])
            .status()
            .context("running kill")?;
        ensure!(sent.success(), "kill: {sent}");
        let status = Wait::for_it("the operator has exited after SIGTERM")
            .within(Duration::from_secs(15))
            .every(Duration::from_millis(5))
            .silently()
            .until(async || {
                Ok(self
                    .child
                    .try_wait()?
                    .map_or(Look::NotYet("the operator runs".to_owned()), Look::Reached))
            })
            .await?;
        Ok(Exit {
            status,
            took: asked.elapsed(),
        })
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        // The operator may have exited by itself. An exited process keeps its id until the wait.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(mut pipe) = self.guard.stdin.take() {
            let _ = std::io::Write::write_all(&mut pipe, b"\n");
        }
        let _ = self.guard.wait();
    }
}

/// Waits until the operator at this address reports that it is ready.
pub async fn until_ready(address: SocketAddr, limit: Duration) -> anyhow::Result<()> {
    Wait::for_it("the operator is ready")
        .within(limit)
        .every(Duration::from_millis(20))
        .silently()
        .until(async || {
            Ok(match get(address, "/readyz").await {
                Ok((200, _)) => Look::Reached(()),
                Ok((code, body)) => Look::NotYet(format!("{code}: {}", body.trim())),
                Err(error) => Look::NotYet(format!("{error:#}")),
            })
        })
        .await
}

/// Sends a GET request for a path and returns the HTTP status and body.
pub async fn get(address: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)
        .await
        .context("connecting to the operator")?;
    stream
        .write_all(format!("GET {path} HTTP/1.0\r\nHost: slipway\r\n\r\n").as_bytes())
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .with_context(|| format!("not HTTP: {answer:?}"))?;
    let code = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .with_context(|| format!("not HTTP: {head:?}"))?;
    Ok((code, body.to_owned()))
}

/// Returns the last 25 lines of the log with a warning, an error or a panic.
pub fn complaints(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text
        .lines()
        .filter(|line| line.contains("WARN") || line.contains("ERROR") || line.contains("panicked"))
        .collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}
