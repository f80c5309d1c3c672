//! The shell blocks of the documentation, with the treatment that the documentation test gives them.
//!
//! A fenced `sh` block is preceded by a comment on a line of its own:
//!
//! - `<!-- test: run -->` runs the block; it must succeed.
//! - `<!-- test: run, expect: TEXT -->` also requires that the output contains the text.
//! - `<!-- test: skip, because: REASON -->` does not run the block.
//!
//! A block without a comment is an error. An indented code block with a command is an error too.

use anyhow::{Context as _, bail, ensure};

/// A shell block of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The line number of the first command, counted from 1.
    pub line: usize,
    /// The commands.
    pub commands: String,
    /// The treatment by the test.
    pub treatment: Treatment,
}

/// The treatment of a block by the test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// The test runs the block, which must succeed. With a text, the output must contain the text.
    Run(Option<String>),
    /// The test does not run the block, for this reason.
    Skip(String),
}

/// Returns the shell blocks of a page of Markdown. The error names the line.
pub fn blocks(page: &str) -> anyhow::Result<Vec<Block>> {
    let mut blocks = Vec::new();
    let mut treatment = None;
    let mut lines = page.lines().enumerate().map(|(index, line)| (index + 1, line));
    while let Some((number, line)) = lines.next() {
        let trimmed = line.trim();
        if let Some(language) = trimmed.strip_prefix("```") {
            let indentation = line.len() - line.trim_start().len();
            let mut commands = String::new();
            loop {
                let (_, line) = lines
                    .next()
                    .with_context(|| format!("line {number}: the block has no end"))?;
                if line.trim() == "```" {
                    break;
                }
                commands.push_str(line.get(indentation..).unwrap_or_default());
                commands.push('\n');
            }
            let comment = treatment.take();
            match (language, comment) {
                ("sh", Some(treatment)) => blocks.push(Block {
                    line: number + 1,
                    commands,
                    treatment,
                }),
                ("sh", None) => bail!("line {number}: the block has no comment with its treatment"),
                ("", _) => bail!("line {number}: the block names no language"),
                (_, Some(_)) => bail!("line {number}: only a `sh` block is tested"),
                (_, None) => {}
            }
        } else if let Some(comment) = trimmed.strip_prefix("<!-- test:") {
            let comment = comment.strip_suffix("-->").map(str::trim);
            let comment = comment.with_context(|| format!("line {number}: the comment has no end"))?;
            treatment = Some(parse(comment).with_context(|| format!("line {number}"))?);
        } else if line.starts_with("    ") && treatment.is_none() {
            ensure!(
                !is_command(trimmed),
                "line {number}: a command is indented; put it into a `sh` block"
            );
        }
    }
    ensure!(treatment.is_none(), "the last comment has no block");
    Ok(blocks)
}

fn parse(comment: &str) -> anyhow::Result<Treatment> {
    let (word, rest) = comment.split_once(',').unwrap_or((comment, ""));
    let rest = rest.trim();
    match word {
        "run" if rest.is_empty() => Ok(Treatment::Run(None)),
        "run" => {
            let text = rest
                .strip_prefix("expect:")
                .context("`run,` is followed by `expect: TEXT`")?;
            Ok(Treatment::Run(Some(text.trim().trim_matches('`').to_owned())))
        }
        "skip" => {
            let reason = rest
                .strip_prefix("because:")
                .context("`skip` gives a reason: `skip, because: REASON`")?;
            ensure!(!reason.trim().is_empty(), "the reason is empty");
            Ok(Treatment::Skip(reason.trim().to_owned()))
        }
        _ => bail!("`{comment}` is neither `run` nor `skip`"),
    }
}

fn is_command(line: &str) -> bool {
    ["kubectl ", "make ", "curl ", "slipway ", "cargo ", "$ "]
        .iter()
        .any(|command| line.starts_with(command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_block_has_its_line_and_treatment() {
        let page = "# A\n<!-- test: run, expect: `yes` -->\n```sh\necho yes\n```\n\
                    1. step\n   <!-- test: skip, because: it needs a registry -->\n   ```sh\n   push \\\n     it\n   ```\n```text\nno\n```\n";
        let blocks = blocks(page).expect("blocks");
        let expected = [
            Block {
                line: 4,
                commands: "echo yes\n".to_owned(),
                treatment: Treatment::Run(Some("yes".to_owned())),
            },
            Block {
                line: 9,
                commands: "push \\\n  it\n".to_owned(),
                treatment: Treatment::Skip("it needs a registry".to_owned()),
            },
        ];
        assert_eq!(blocks, expected);
    }

    #[test]
    fn blocks_rejects_a_page_with_an_untreated_block() {
        for page in [
            "```sh\nls\n```\n",
            "```\nls\n```\n",
            "text\n\n    kubectl get pods\n",
            "<!-- test: run -->\n",
            "<!-- test: skip -->\n```sh\nls\n```\n",
            "<!-- test: walk -->\n```sh\nls\n```\n",
            "<!-- test: run -->\n```sh\nls\n",
        ] {
            assert!(blocks(page).is_err(), "{page}");
        }
    }
}
