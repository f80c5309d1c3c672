//! Golden pairs: `tests/golden/<name>.in.yaml` describes a cluster. `tests/golden/<name>.out.yaml` is the whole plan for that
//! cluster, status and events included, as `slipway render` prints the plan.
//!
//! `GOLDEN=write cargo test --test golden` rewrites the outputs. Review the diff before you commit the outputs.

use std::fs;
use std::path::{Path, PathBuf};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Returns the names of the files that end with `suffix`, without the suffix, sorted.
fn names(suffix: &str) -> Vec<String> {
    let entries = fs::read_dir(golden()).expect("the folder exists");
    let files = entries.map(|entry| {
        entry
            .expect("an entry")
            .file_name()
            .into_string()
            .expect("a name in UTF-8")
    });
    let mut names: Vec<_> = files
        .filter_map(|file| Some(file.strip_suffix(suffix)?.to_owned()))
        .collect();
    names.sort();
    names
}

/// Returns the first line in which two texts differ, with the surrounding lines.
fn difference(expected: &str, found: &str) -> String {
    let same = expected.lines().zip(found.lines()).take_while(|(a, b)| a == b).count();
    let around = |text: &str| -> String {
        let lines = text.lines().enumerate().skip(same.saturating_sub(3)).take(8);
        let lines: Vec<_> = lines
            .map(|(number, line)| format!("{:5} {line}\n", number + 1))
            .collect();
        lines.concat()
    };
    format!("expected:\n{}found:\n{}", around(expected), around(found))
}

#[test]
fn slipway_render_prints_the_golden_output_of_every_input() {
    let rewrite = std::env::var("GOLDEN").is_ok_and(|value| value == "write");
    let mut failed = Vec::new();
    for name in names(".in.yaml") {
        let input = fs::read_to_string(golden().join(format!("{name}.in.yaml"))).expect("the input can be read");
        let found = slipway::render::render(&input).unwrap_or_else(|error| panic!("{name}: {error}"));
        let file = golden().join(format!("{name}.out.yaml"));
        if rewrite {
            fs::write(&file, &found).expect("the output can be written");
        }
        let expected = fs::read_to_string(&file).unwrap_or_default();
        if expected != found {
            failed.push(format!("{name}: {}", difference(&expected, &found)));
        }
    }
    assert!(
        failed.is_empty(),
        "{} plans differ from their golden outputs (GOLDEN=write cargo test --test golden rewrites the outputs):\n{}",
        failed.len(),
        failed.join("\n")
    );
}

#[test]
fn every_golden_output_has_an_input() {
    let inputs = names(".in.yaml");
    let alone: Vec<_> = names(".out.yaml")
        .into_iter()
        .filter(|name| !inputs.contains(name))
        .collect();
    assert!(alone.is_empty(), "outputs without an input: {alone:?}");
}

#[test]
fn golden_outputs_contain_no_private_key() {
    for name in names(".out.yaml") {
        let text = fs::read_to_string(golden().join(format!("{name}.out.yaml"))).expect("the output can be read");
        assert!(!text.contains("LS0tLS1CRUdJTi"), "{name} contains PEM");
    }
}

#[test]
fn the_crd_in_the_repository_equals_the_generated_crd() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds/contour.slipway.dev_contourdeployments.yaml");
    let text = fs::read_to_string(file).expect("the CRD can be read");
    let written: serde_json::Value = serde_saphyr::from_str(&text).expect("YAML");
    let made = serde_json::to_value(slipway::api::crd()).expect("a CRD is JSON");
    assert!(written == made, "the CRDs differ: run `make generate`");
}
