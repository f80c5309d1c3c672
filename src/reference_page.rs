//! The reference page. It is generated from the CRD and the vocabulary, so that it can't contradict them.

use std::fmt::Write as _;

use serde_json::Value;

use crate::api::vocabulary::{annotations, conditions, labels, reasons};
use crate::api::{ExtensionServiceState, Traffic, crd};
use crate::contour::version::{FlagValue, Version};
use crate::plan::{Besides, DEGRADED, READY, Rule};

/// Returns the page, in Markdown.
pub fn page() -> String {
    let mut page = String::from(
        "<!-- Generated from the code by `make generate`; manual edits are lost. -->\n\
         # Reference: ContourDeployment (`contour.slipway.dev/v1alpha1`, short name `cdep`)\n\n\
         `*` marks a required field. The Kubernetes API reference describes the fields of Kubernetes' own types.\n",
    );
    let crd = serde_json::to_value(crd()).expect("a CRD is JSON");
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    for part in ["spec", "status"] {
        let _ = write!(page, "\n## {part}\n\n| field | type | description |\n|---|---|---|\n");
        fields(&mut page, &schema[part], part);
    }
    flags(&mut page);
    words(&mut page, "Conditions", "type", conditions::ALL);
    words(&mut page, "Reasons", "reason", reasons::ALL);
    words(&mut page, "Labels", "label", labels::ALL);
    words(&mut page, "Annotations", "annotation", annotations::ALL);
    let _ = write!(
        page,
        "\n## States\n\nStates of an ExtensionService: {}. Effects on traffic: {}.\n",
        listed(&ExtensionServiceState::ALL),
        listed(&Traffic::ALL),
    );
    chain(
        &mut page,
        "Ready, Reconciling and Stalled",
        "Ready is False if at least one of these rules applies. The first rule that applies sets the reason and message. It also sets \
         Reconciling or Stalled to True, as the table shows, with the same reason and message. If no rule applies, Ready is True.",
        READY,
    );
    chain(
        &mut page,
        "Degraded",
        "Degraded is True if at least one of these rules applies. The first rule that applies sets the reason and message. If no rule \
         applies, Degraded is False. During a deletion, and before the configuration is checked, Degraded keeps its value.",
        DEGRADED,
    );
    page
}

/// Adds the flags that `spec.envoy.extraArgs` may contain.
fn flags(page: &mut String) {
    page.push_str("\n## Flags in spec.envoy.extraArgs\n\n| flag | value |\n|---|---|\n");
    for (flag, value) in Version::DEFAULT.facts().envoy_flags {
        let value = match value {
            FlagValue::None => "none".to_owned(),
            FlagValue::Number(greatest) => format!("a number from 0 to {greatest}"),
            FlagValue::Text => "a text".to_owned(),
            FlagValue::OneOf(texts) => texts
                .iter()
                .map(|text| format!("`{text}`"))
                .collect::<Vec<_>>()
                .join(" or "),
        };
        let _ = writeln!(page, "| `{flag}` | {value} |");
    }
}

fn listed(values: &[impl std::fmt::Debug]) -> String {
    values
        .iter()
        .map(|value| format!("`{value:?}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Adds a table with one row for each rule of a chain, in the chain's order.
fn chain(page: &mut String, title: &str, what: &str, rules: &[Rule]) {
    let _ = write!(
        page,
        "\n## {title}\n\n{what}\n\n| | when | reason | also True |\n|---|---|---|---|\n"
    );
    for (number, rule) in rules.iter().enumerate() {
        let reasons: Vec<_> = rule.reasons.iter().map(|reason| format!("`{reason}`")).collect();
        let reasons = if reasons.is_empty() {
            "`ExtensionService` followed by the state".to_owned()
        } else {
            reasons.join(", ")
        };
        let besides = match rule.besides {
            Besides::Nothing => "",
            Besides::Reconciling => "`Reconciling`",
            Besides::Stalled => "`Stalled`",
        };
        let _ = writeln!(page, "| {} | {} | {reasons} | {besides} |", number + 1, rule.when);
    }
}

fn words(page: &mut String, title: &str, what: &str, words: &[(&str, &str)]) {
    let _ = write!(page, "\n## {title}\n\n| {what} | meaning |\n|---|---|\n");
    for (word, meaning) in words {
        let _ = writeln!(page, "| `{word}` | {} |", meaning.trim());
    }
}

/// Adds one row for each field below this schema.
fn fields(page: &mut String, schema: &Value, path: &str) {
    let required: Vec<&str> = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        let mark = if required.contains(&name.as_str()) { "\\*" } else { "" };
        let _ = writeln!(page, "| `{path}`{mark} | {} | {} |", type_of(field), meaning(field));
        let is_array = field["type"] == "array";
        let (below, path) = if is_array {
            (&field["items"], format!("{path}[]"))
        } else {
            (field, path)
        };
        if !is_kubernetes_own(&path) {
            fields(page, below, &path);
        }
    }
}

/// Reports whether the field at this path has a type that Kubernetes documents.
fn is_kubernetes_own(path: &str) -> bool {
    [".resources", ".tolerations[]", ".conditions[]"]
        .iter()
        .any(|own| path.ends_with(own))
}

fn type_of(field: &Value) -> String {
    if let Some(values) = field["enum"].as_array() {
        let values = values.iter().filter(|value| !value.is_null());
        return values
            .map(|value| format!("`{}`", value.as_str().unwrap_or_default()))
            .collect::<Vec<_>>()
            .join(" or ");
    }
    let mut text = field["type"].as_str().unwrap_or("any").to_owned();
    let bound = |key: &str| field[key].as_f64();
    match (bound("minimum"), bound("maximum")) {
        (Some(least), Some(most)) => {
            let _ = write!(text, " {least} to {most}");
        }
        (Some(least), None) => {
            let _ = write!(text, " from {least}");
        }
        _ => {}
    }
    if let Some(items) = field["items"]["type"].as_str() {
        let _ = write!(text, " of {items}");
    }
    text
}

fn meaning(field: &Value) -> String {
    let description = field["description"]
        .as_str()
        .unwrap_or_default()
        .replace('\n', " ")
        .replace('|', "\\|");
    let rules = field["x-kubernetes-validations"].as_array().into_iter().flatten();
    let rules = rules.filter_map(|rule| rule["message"].as_str());
    rules.fold(description, |text, message| format!("{text} Rule: {message}."))
}
