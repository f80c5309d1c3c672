//! Compares a merged object with the object that Slipway built, by the rules.

use serde_json::Value;

use super::rules::Rule;
use crate::api::vocabulary::DOMAIN;

/// Returns one message for each value that the overlay changes against a rule.
pub fn check(rule: &Rule, base: &Value, merged: &Value, path: &str) -> Vec<String> {
    let mut problems = Vec::new();
    compare(rule, base, merged, path, &mut problems);
    problems
}

/// Null stands for an absent value.
fn compare(rule: &Rule, base: &Value, merged: &Value, path: &str, problems: &mut Vec<String>) {
    let mut refuse = |path: &str, why: String| problems.push(format!("{path}: {why}"));
    if base == merged {
        return;
    }
    match rule {
        Rule::Free => {}
        Rule::Own => refuse(path, "Slipway sets this value; remove it from the overlay".to_owned()),
        Rule::Typed(field) => refuse(
            path,
            format!("{field} sets this value; use that field instead of the overlay"),
        ),
        Rule::Refused(why) => refuse(path, format!("this field is refused: {why}")),
        Rule::Fields(rules) => {
            for key in keys(base, merged) {
                let rule = rules.iter().find(|(field, _)| *field == key);
                let rule = rule.map_or(&Rule::Own, |(_, rule)| rule);
                compare(rule, &base[key], &merged[key], &format!("{path}.{key}"), problems);
            }
        }
        Rule::Additions => {
            for key in keys(base, merged) {
                let is_own = !base[key].is_null() || is_slipways(key);
                if is_own && base[key] != merged[key] {
                    refuse(
                        &format!("{path}[{key:?}]"),
                        "Slipway sets this key; remove it from the overlay".to_owned(),
                    );
                }
            }
        }
        Rule::Items { key, own, added } => {
            let (base, merged) = (items(base), items(merged));
            for (index, item) in merged.iter().enumerate() {
                let name = item[key].as_str().map_or_else(|| item[key].to_string(), str::to_owned);
                let path = format!("{path}[{key}={name:?}]");
                match base.get(index) {
                    Some(base) => compare(own(&name), base, item, &path, problems),
                    None => problems.extend(added(item, base).map(|why| format!("{path}: {why}"))),
                }
            }
            if merged.len() < base.len() {
                problems.push(format!("{path}: the overlay removes items of Slipway's"));
            }
        }
    }
}

/// Reports whether a label or an annotation is in Slipway's own vocabulary.
fn is_slipways(key: &str) -> bool {
    key.split_once('/')
        .is_some_and(|(domain, _)| domain == DOMAIN || domain.ends_with(&format!(".{DOMAIN}")))
}

fn keys<'a>(base: &'a Value, merged: &'a Value) -> impl Iterator<Item = &'a str> {
    let keys = |value: &'a Value| {
        value
            .as_object()
            .into_iter()
            .flat_map(|fields| fields.keys().map(String::as_str))
    };
    let added = keys(merged).filter(|key| base.get(key).is_none());
    keys(base).chain(added)
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
