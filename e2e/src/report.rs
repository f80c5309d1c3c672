//! `target/demo/report.json`: what the demo saw, for programs.

use std::path::PathBuf;

use anyhow::Context as _;
use serde::Serialize;

use crate::hosts::Both;
use crate::places;

/// What was seen; `null` for what was not reached.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Container restarts of all of Contour's pods, the most that were seen.
    pub contour_restarts: Option<i32>,
    /// Status code while the ExtensionService has never existed.
    pub http_missing: Option<u16>,
    /// The same over HTTPS.
    pub https_missing: Option<u16>,
    /// From sending the ExtensionService's creation until both hosts ask the authorization server.
    pub enforced_after_ms: Option<u64>,
    /// Status code without credentials, when enforced.
    pub http_anonymous: Option<u16>,
    /// Status code with credentials, when enforced.
    pub http_authorized: Option<u16>,
    /// As `http_anonymous`.
    pub https_anonymous: Option<u16>,
    /// As `http_authorized`.
    pub https_authorized: Option<u16>,
    /// Status code after the ExtensionService's deletion.
    pub http_deleted: Option<u16>,
    /// The same over HTTPS.
    pub https_deleted: Option<u16>,
    /// Status code after its deletion with `failOpen: true`.
    pub http_fail_open: Option<u16>,
    /// The same over HTTPS.
    pub https_fail_open: Option<u16>,
    /// The line that stock Contour exits with.
    pub stock_log_line: Option<String>,
    /// What was left of the ContourDeployment after its deletion.
    pub objects_left: Option<Vec<String>>,
    /// All measurements like `enforced_after_ms` of this run, with `RUNS`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub enforced_after_ms_runs: Vec<u64>,
    /// Their median.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enforced_after_ms_median: Option<u64>,
}

impl Report {
    /// Notes restarts; the most that were seen stays.
    pub fn note_restarts(&mut self, restarts: i32) {
        self.contour_restarts = self.contour_restarts.max(Some(restarts));
    }

    /// Notes what was answered while the ExtensionService had never existed.
    pub fn note_missing(&mut self, seen: &Both) {
        (self.http_missing, self.https_missing) = (seen.http.status(), seen.https.status());
    }

    /// Notes what was answered without and with credentials, when enforced.
    pub fn note_enforced(&mut self, anonymous: &Both, authorized: &Both) {
        (self.http_anonymous, self.https_anonymous) = (anonymous.http.status(), anonymous.https.status());
        (self.http_authorized, self.https_authorized) = (authorized.http.status(), authorized.https.status());
    }

    /// Notes what was answered after the ExtensionService's deletion.
    pub fn note_deleted(&mut self, seen: &Both) {
        (self.http_deleted, self.https_deleted) = (seen.http.status(), seen.https.status());
    }

    /// Notes what was answered after its deletion with `failOpen: true`.
    pub fn note_fail_open(&mut self, seen: &Both) {
        (self.http_fail_open, self.https_fail_open) = (seen.http.status(), seen.https.status());
    }

    /// Writes it; returns where.
    pub fn write(&self) -> anyhow::Result<PathBuf> {
        let file = places::target().join("demo/report.json");
        let folder = file.parent().expect("it has a folder");
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let text = serde_json::to_string_pretty(self).context("writing JSON")?;
        std::fs::write(&file, text + "\n").with_context(|| format!("writing {}", file.display()))?;
        Ok(file)
    }
}

/// The middle one, or the lower of the two in the middle.
pub fn median(values: &[u64]) -> Option<u64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_one_in_the_middle() {
        assert_eq!(median(&[9, 1, 5]), Some(5));
        assert_eq!(median(&[4, 1, 3, 2]), Some(2));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn the_most_restarts_stay() {
        let mut report = Report::default();
        for seen in [0, 2, 1] {
            report.note_restarts(seen);
        }
        assert_eq!(report.contour_restarts, Some(2));
    }

    #[test]
    fn a_report_has_the_agreed_fields_and_those_of_several_runs_only_when_there_were_some() {
        let json = serde_json::to_value(Report::default()).expect("JSON");
        let mut fields: Vec<_> = json
            .as_object()
            .expect("an object")
            .keys()
            .map(String::as_str)
            .collect();
        let mut agreed = [
            "contour_restarts",
            "http_missing",
            "https_missing",
            "enforced_after_ms",
            "http_anonymous",
            "http_authorized",
            "https_anonymous",
            "https_authorized",
            "http_deleted",
            "https_deleted",
            "http_fail_open",
            "https_fail_open",
            "stock_log_line",
            "objects_left",
        ];
        agreed.sort_unstable();
        fields.sort_unstable();
        assert_eq!(fields, agreed);
    }
}
