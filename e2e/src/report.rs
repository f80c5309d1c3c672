//! `target/demo/report.json`: the results of the demo for other programs.

use std::path::PathBuf;

use anyhow::Context as _;
use serde::Serialize;

use crate::hosts::Both;
use crate::places;

/// The results of the demo; `null` for steps that the demo did not reach.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The highest number of container restarts of all of Contour's pods together.
    pub contour_restarts: Option<i32>,
    /// The status code before the ExtensionService exists for the first time.
    pub http_missing: Option<u16>,
    /// The same over HTTPS.
    pub https_missing: Option<u16>,
    /// The time from the creation request of the ExtensionService until both hosts enforce its checks, in milliseconds.
    pub enforced_after_ms: Option<u64>,
    /// The status code without credentials, with checks enforced.
    pub http_anonymous: Option<u16>,
    /// The status code with credentials, with checks enforced.
    pub http_authorized: Option<u16>,
    /// The same as `http_anonymous`, over HTTPS.
    pub https_anonymous: Option<u16>,
    /// The same as `http_authorized`, over HTTPS.
    pub https_authorized: Option<u16>,
    /// The status code after the deletion of the ExtensionService.
    pub http_deleted: Option<u16>,
    /// The same over HTTPS.
    pub https_deleted: Option<u16>,
    /// The status code after the deletion of the ExtensionService with `failOpen: true`.
    pub http_fail_open: Option<u16>,
    /// The same over HTTPS.
    pub https_fail_open: Option<u16>,
    /// The fatal log line of stock Contour.
    pub stock_log_line: Option<String>,
    /// The objects that were left of the ContourDeployment after its deletion.
    pub objects_left: Option<Vec<String>>,
    /// All measurements of `enforced_after_ms` in this run, with `RUNS`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub enforced_after_ms_runs: Vec<u64>,
    /// The median of these measurements.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enforced_after_ms_median: Option<u64>,
}

impl Report {
    /// Records restarts; the highest number is kept.
    pub fn note_restarts(&mut self, restarts: i32) {
        self.contour_restarts = self.contour_restarts.max(Some(restarts));
    }

    /// Records the answers before the ExtensionService exists for the first time.
    pub fn note_missing(&mut self, seen: &Both) {
        (self.http_missing, self.https_missing) = (seen.http.status(), seen.https.status());
    }

    /// Records the answers without and with credentials, with checks enforced.
    pub fn note_enforced(&mut self, anonymous: &Both, authorized: &Both) {
        (self.http_anonymous, self.https_anonymous) = (anonymous.http.status(), anonymous.https.status());
        (self.http_authorized, self.https_authorized) = (authorized.http.status(), authorized.https.status());
    }

    /// Records the answers after the deletion of the ExtensionService.
    pub fn note_deleted(&mut self, seen: &Both) {
        (self.http_deleted, self.https_deleted) = (seen.http.status(), seen.https.status());
    }

    /// Records the answers after the deletion of the ExtensionService with `failOpen: true`.
    pub fn note_fail_open(&mut self, seen: &Both) {
        (self.http_fail_open, self.https_fail_open) = (seen.http.status(), seen.https.status());
    }

    /// Writes the report and returns its path.
    pub fn write(&self) -> anyhow::Result<PathBuf> {
        let file = places::target().join("demo/report.json");
        let folder = file.parent().expect("the path has a parent");
        std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        let text = serde_json::to_string_pretty(self).context("writing JSON")?;
        std::fs::write(&file, text + "\n").with_context(|| format!("writing {}", file.display()))?;
        Ok(file)
    }
}

/// Returns the middle value, or the lower of the two middle values, or None for an empty slice.
pub fn median(values: &[u64]) -> Option<u64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_returns_the_middle_value() {
        assert_eq!(median(&[9, 1, 5]), Some(5));
        assert_eq!(median(&[4, 1, 3, 2]), Some(2));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn report_keeps_the_highest_number_of_restarts() {
        let mut report = Report::default();
        for seen in [0, 2, 1] {
            report.note_restarts(seen);
        }
        assert_eq!(report.contour_restarts, Some(2));
    }

    #[test]
    fn empty_report_has_exactly_the_agreed_fields() {
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
