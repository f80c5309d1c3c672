//! The command line: commands and options.

use std::net::SocketAddr;
use std::path::PathBuf;

use slipway::telemetry::logs::LogFormat;

/// Runs Project Contour and its Envoys from one custom resource, in any start-up order
#[derive(clap::Parser, Debug)]
#[command(name = "slipway", version)]
pub struct Cli {
    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
}

/// A command of `slipway`.
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Run the operator until SIGTERM or SIGINT
    Run(RunOptions),
    /// Print the CustomResourceDefinition of ContourDeployment
    Crd,
    /// Print the reference page of the API, in Markdown
    Reference,
    /// Print the objects that the operator would write for a ContourDeployment, without a cluster
    Render {
        /// File with the ContourDeployment (YAML or JSON); `-` reads standard input
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
    },
    /// Remove Slipway's finalizers, for clusters where the operator was uninstalled before its ContourDeployments were deleted
    Release {
        /// Release the objects of every ContourDeployment; by default only those of ContourDeployments that are deleted or being deleted
        #[arg(long)]
        all: bool,
        /// Print the objects that carry the finalizer, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Print the version
    Version,
}

/// Options of `slipway run`.
#[derive(clap::Args, Debug)]
pub struct RunOptions {
    /// Address on which /livez, /readyz and /metrics are served
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// Format of the log lines
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
    /// Events to log: a level, or a list of target=level
    #[arg(long, value_name = "FILTER", default_value = "info")]
    pub log: String,
    /// Namespace that the operator runs in
    #[arg(long, env = "POD_NAMESPACE")]
    pub namespace: String,
    /// ServiceAccount that the operator runs as
    #[arg(long, value_name = "NAME", default_value = "slipway")]
    pub service_account: String,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_requires_only_the_namespace() {
        let cli = Cli::try_parse_from(["slipway", "run", "--namespace", "slipway-system"]).unwrap();
        let Command::Run(options) = cli.command else {
            panic!("not run: {cli:?}")
        };
        assert_eq!(options.listen, SocketAddr::from(([0, 0, 0, 0], 8080)));
        assert_eq!(options.log_format, LogFormat::Json);
        assert_eq!(options.log, "info");
        assert_eq!(options.namespace, "slipway-system");
        assert_eq!(options.service_account, "slipway");
    }
}
