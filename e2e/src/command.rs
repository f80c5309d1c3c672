//! Running programs. The errors contain the command line and the program's output.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, bail};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// Runs `program` to its end and returns its standard output.
///
/// `input` is the program's standard input. The error of a failed program contains the command line and the full output.
pub async fn output(program: &Path, arguments: &[&str], input: Option<&str>) -> anyhow::Result<String> {
    let line = line(program, arguments);
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("starting {line}"))?;
    if let (Some(text), Some(mut pipe)) = (input, child.stdin.take()) {
        // A program that exits without reading reports the reason itself; the exit status is checked below.
        drop(pipe.write_all(text.as_bytes()).await);
    }
    let done = child
        .wait_with_output()
        .await
        .with_context(|| format!("waiting for {line}"))?;
    let printed = String::from_utf8_lossy(&done.stdout);
    if !done.status.success() {
        bail!(
            "{line}: {}\n{}{printed}",
            done.status,
            String::from_utf8_lossy(&done.stderr)
        );
    }
    Ok(printed.into_owned())
}

/// Runs `program` to its end and returns its standard output. The program inherits this process's standard error.
pub async fn watched(command: &mut Command) -> anyhow::Result<String> {
    let line = {
        let command = command.as_std();
        let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
        let arguments: Vec<_> = arguments.iter().map(AsRef::as_ref).collect();
        line(Path::new(command.get_program()), &arguments)
    };
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let done = child
        .with_context(|| format!("starting {line}"))?
        .wait_with_output()
        .await
        .with_context(|| format!("waiting for {line}"))?;
    let printed = String::from_utf8_lossy(&done.stdout);
    if !done.status.success() {
        bail!("{line}: {}\n{printed}", done.status);
    }
    Ok(printed.into_owned())
}

fn line(program: &Path, arguments: &[&str]) -> String {
    let mut line = program
        .file_name()
        .unwrap_or(program.as_os_str())
        .to_string_lossy()
        .into_owned();
    for argument in arguments {
        line.push(' ');
        line.push_str(argument);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn error_contains_the_command_and_its_output() {
        let error = output(Path::new("/bin/sh"), &["-c", "echo out; echo err >&2; exit 3"], None).await;
        let text = error.expect_err("it fails").to_string();
        for part in ["sh -c", "exit status: 3", "out", "err"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[tokio::test]
    async fn program_receives_the_input() {
        assert_eq!(
            output(Path::new("/bin/cat"), &[], Some("hello"))
                .await
                .expect("cat works"),
            "hello"
        );
    }
}
