//! Runs the shell blocks of the README and of the task pages, in order, as a user would.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use slipway_e2e::cluster::Cluster;
use slipway_e2e::documentation::{Block, Treatment, blocks};
use slipway_e2e::narration::{say, title};
use slipway_e2e::{binaries, installation, places};
use tokio::process::Command;

/// The limit for all blocks of a page.
const PAGE: Duration = Duration::from_mins(10);

/// The line of output that begins a block.
const MARK: &str = "@@ line ";

#[tokio::test]
async fn every_command_of_the_readme_and_the_task_pages_works() {
    let cluster = installed()
        .await
        .unwrap_or_else(|error| panic!("the start of the cluster failed: {error:#}"));
    if let Err(error) = play(&cluster).await {
        installation::diagnose(&cluster).await;
        panic!("{error:#}");
    }
}

/// Starts a cluster with Slipway, as `make cluster` does.
async fn installed() -> anyhow::Result<Cluster> {
    // `CLUSTER=name` selects a running cluster, for daily work.
    let cluster = match std::env::var("CLUSTER") {
        Ok(name) if !name.is_empty() => Cluster::attach(&name).await?,
        _ => Cluster::start("docs").await?,
    };
    installation::everything(&cluster).await?;
    Ok(cluster)
}

/// Runs the pages one after the other.
async fn play(cluster: &Cluster) -> anyhow::Result<()> {
    let tasks = places::repository().join("docs/tasks");
    let mut pages = Vec::new();
    for entry in fs::read_dir(&tasks).with_context(|| format!("reading {}", tasks.display()))? {
        pages.push(entry?.path());
    }
    pages.sort();
    pages.insert(0, places::repository().join("README.md"));
    pages.push(places::repository().join("docs/troubleshooting.md"));
    let tools = tools(cluster).await?;
    for page in pages {
        let name = page
            .strip_prefix(places::repository())
            .unwrap_or(&page)
            .display()
            .to_string();
        title(&name);
        run(cluster, &page, &tools).await.context(name)?;
        let left = cluster.kubectl().run(&["get", "cdep", "-A", "-o", "name"]).await?;
        ensure!(left.is_empty(), "{}: the page does not delete {left}", page.display());
    }
    Ok(())
}

/// Creates a folder with the programs that the pages use.
async fn tools(cluster: &Cluster) -> anyhow::Result<PathBuf> {
    let folder = places::target().join("documentation-tools");
    drop(fs::remove_dir_all(&folder));
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let slipway = &binaries::built().await?.slipway;
    for (name, program) in [("kubectl", cluster.kubectl().program()), ("slipway", slipway.as_path())] {
        symlink(program, folder.join(name)).with_context(|| format!("linking {name}"))?;
    }
    Ok(folder)
}

/// Runs the blocks of a page in one shell.
async fn run(cluster: &Cluster, page: &Path, tools: &Path) -> anyhow::Result<()> {
    let text = fs::read_to_string(page).context("reading the page")?;
    let blocks = blocks(&text)?;
    let mut script = "set -euo pipefail\nexec 2>&1\n".to_owned();
    for Block {
        line,
        commands,
        treatment,
    } in &blocks
    {
        match treatment {
            Treatment::Run(_) => write!(script, "echo '{MARK}{line}'\n{commands}")?,
            Treatment::Skip(reason) => say(format!("line {line} is skipped: {reason}")),
        }
    }
    let output = shell(cluster, &script, tools).await?;
    for block in &blocks {
        let Treatment::Run(Some(expected)) = &block.treatment else {
            continue;
        };
        let printed = printed(&output, block.line).with_context(|| format!("line {} did not run", block.line))?;
        ensure!(
            printed.contains(expected),
            "line {}: expected `{expected}`, the output is:\n{printed}",
            block.line
        );
    }
    Ok(())
}

/// Runs a script and returns its output. The error names the line of the page at which the script failed.
async fn shell(cluster: &Cluster, script: &str, tools: &Path) -> anyhow::Result<String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let file = tools.join("page.sh");
    fs::write(&file, script).with_context(|| format!("writing {}", file.display()))?;
    let child = Command::new("bash")
        .arg(&file)
        .current_dir(places::repository())
        .env("PATH", format!("{}:{path}", tools.display()))
        .env("KUBECONFIG", cluster.kubectl().kubeconfig())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("starting bash")?;
    let done = tokio::time::timeout(PAGE, child.wait_with_output())
        .await
        .with_context(|| format!("the blocks did not end within {PAGE:?}"))?
        .context("waiting for bash")?;
    let output = String::from_utf8_lossy(&done.stdout).into_owned();
    if !done.status.success() {
        let last = output.lines().rev().find_map(|line| line.strip_prefix(MARK));
        bail!(
            "line {}: the commands failed ({}); the output is:\n{output}",
            last.unwrap_or("0"),
            done.status
        );
    }
    Ok(output)
}

/// Returns what the block at this line printed.
fn printed(output: &str, line: usize) -> Option<&str> {
    let mark = format!("{MARK}{line}\n");
    let (_, after) = output.split_once(&mark)?;
    Some(after.split_once(MARK).map_or(after, |(printed, _)| printed))
}
