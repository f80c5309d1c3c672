//! kubectl, run as a user runs it.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::Value;

use crate::command;

/// kubectl for one cluster.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: String,
}

impl Kubectl {
    /// Returns kubectl for `program` with `kubeconfig`, regardless of the environment.
    pub fn new(program: PathBuf, kubeconfig: &Path) -> Self {
        Self {
            program,
            kubeconfig: kubeconfig.to_string_lossy().into_owned(),
        }
    }

    /// Returns the path of the program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Returns the path of the kubeconfig.
    pub fn kubeconfig(&self) -> &str {
        &self.kubeconfig
    }

    /// Runs `kubectl ARGUMENTS…` and returns the standard output. The error contains kubectl's messages.
    pub async fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.run_with(arguments, None).await
    }

    /// Runs `kubectl ARGUMENTS… -o json` and returns the parsed output.
    pub async fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let printed = self.run(&[arguments, &["-o", "json"]].concat()).await?;
        serde_json::from_str(&printed).with_context(|| format!("reading the JSON of kubectl {}", arguments.join(" ")))
    }

    /// Runs `kubectl apply -f FILE`. A file that does not exist has an error message of its own.
    pub async fn apply_file(&self, file: &Path) -> anyhow::Result<String> {
        anyhow::ensure!(file.is_file(), "{} does not exist", file.display());
        self.run(&["apply", "-f", &file.to_string_lossy()]).await
    }

    /// Runs `kubectl apply -f -` with one object.
    pub async fn apply(&self, object: &Value) -> anyhow::Result<String> {
        self.run_with(&["apply", "-f", "-"], Some(&object.to_string())).await
    }

    /// Runs `kubectl apply -f -` with the given YAML.
    pub async fn apply_text(&self, yaml: &str) -> anyhow::Result<String> {
        self.run_with(&["apply", "-f", "-"], Some(yaml)).await
    }

    async fn run_with(&self, arguments: &[&str], input: Option<&str>) -> anyhow::Result<String> {
        let all = [&["--kubeconfig", self.kubeconfig.as_str()], arguments].concat();
        command::output(&self.program, &all, input).await
    }
}
