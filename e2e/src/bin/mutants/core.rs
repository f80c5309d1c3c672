//! The mutated code: the core, without its tests.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use slipway_e2e::places;

/// The folders of the core, as in `.cargo/mutants.toml`.
const FOLDERS: [&str; 3] = ["src/api", "src/contour", "src/plan"];

/// The start of the tests in a file. Other tests have their own files.
const TESTS: &str = "\n#[cfg(test)]\n";

/// Returns a hash that changes with the core, but not with its tests.
pub fn fingerprint() -> anyhow::Result<String> {
    let mut files = Vec::new();
    for folder in FOLDERS {
        collect(&places::repository().join(folder), &mut files)?;
    }
    files.sort();
    let mut hasher = DefaultHasher::new();
    for file in files.iter().filter(|file| !file.ends_with("tests.rs")) {
        let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        let name = file.strip_prefix(places::repository()).unwrap_or(file);
        (name, without_tests(&text)).hash(&mut hasher);
    }
    Ok(format!("{:016x}", hasher.finish()))
}

fn without_tests(text: &str) -> &str {
    text.split_once(TESTS).map_or(text, |(code, _)| code).trim_end()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprint_ignores_tests() {
        let code = "fn f() {}\n";
        let with_tests = format!("{code}{TESTS}mod tests {{}}\n");
        assert_eq!(without_tests(code), without_tests(&with_tests));
        assert_ne!(without_tests(code), without_tests("fn g() {}\n"));
    }
}
