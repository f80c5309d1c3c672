//! What the operator asks, read off a request's line and body: enough to name it in every run, whatever came before it.

use std::fmt;

use hyper::Method;
use hyper::http::request::Parts;
use serde_json::Value;

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Changes something.
    Write(Write),
    /// Begins to watch.
    Watch(Set),
    /// Reads a whole set, as a watch does before it begins.
    List(Set),
    /// Reads anything else.
    Read,
}

/// A request that changes something (or, as a dry run, would).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Write {
    /// What is done, in the words of the audit log, but for the kinds of patches.
    pub verb: &'static str,
    /// The resource and its subresource: `contourdeployments/status`.
    pub resource: String,
    /// The object's namespace; empty for those that live in none.
    pub namespace: String,
    /// The object's name; empty where each run gives another.
    pub name: String,
}

/// A watched set: a resource, and which part of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Set {
    /// The resource.
    pub resource: String,
    /// All of it, ours, or that of one namespace.
    pub scope: String,
}

impl Asked {
    /// Reads a request.
    pub fn of(parts: &Parts, body: &[u8]) -> Self {
        let query = parts.uri.query().unwrap_or_default();
        let Some(place) = Place::of(parts.uri.path()) else {
            return Self::Read;
        };
        if parts.method == Method::GET {
            if !place.name.is_empty() {
                return Self::Read;
            }
            let watches = query.split('&').any(|pair| pair == "watch=true" || pair == "watch=1");
            // The operator's own looks before a deletion name an owner; watches ask for a label of any value.
            let ours = query.contains("labelSelector");
            if !watches && query.contains("%3D") {
                return Self::Read;
            }
            let scope = match (place.namespace, ours) {
                ("", false) => "all".to_owned(),
                ("", true) => "ours".to_owned(),
                (namespace, false) => namespace.to_owned(),
                (namespace, true) => format!("ours-in-{namespace}"),
            };
            let set = Set {
                resource: place.resource.to_owned(),
                scope,
            };
            return if watches { Self::Watch(set) } else { Self::List(set) };
        }
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let name = if place.name.is_empty() {
            body["metadata"]["name"].as_str().unwrap_or_default()
        } else {
            place.name
        };
        let resource = [place.resource, place.subresource].join("/");
        Self::Write(Write {
            verb: verb(parts, query),
            // Events get a name from the clock.
            name: if place.resource == "events" { "" } else { name }.to_owned(),
            resource: resource.trim_end_matches('/').to_owned(),
            namespace: place.namespace.to_owned(),
        })
    }
}

fn verb(parts: &Parts, query: &str) -> &'static str {
    let content = parts.headers.get(hyper::header::CONTENT_TYPE);
    let content = content.and_then(|it| it.to_str().ok()).unwrap_or_default();
    match parts.method {
        Method::POST if query.contains("dryRun=All") => "try",
        Method::POST => "create",
        Method::PUT => "replace",
        Method::DELETE => "delete",
        _ if content.starts_with("application/apply-patch") => "apply",
        _ if content.starts_with("application/merge-patch") => "merge",
        _ => "patch",
    }
}

/// Where a path leads.
struct Place<'a> {
    namespace: &'a str,
    resource: &'a str,
    name: &'a str,
    subresource: &'a str,
}

impl<'a> Place<'a> {
    /// `/api/v1/…` or `/apis/GROUP/VERSION/…`.
    fn of(path: &'a str) -> Option<Self> {
        let mut segments = path.trim_start_matches('/').split('/');
        match segments.next()? {
            "api" => segments.nth(0)?,
            "apis" => segments.nth(1)?,
            _ => return None,
        };
        let rest: Vec<&str> = segments.collect();
        let (namespace, rest) = match rest.as_slice() {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let part = |index: usize| rest.get(index).copied().unwrap_or_default();
        Some(Self {
            namespace,
            resource: rest.first()?,
            name: part(1),
            subresource: part(2),
        })
    }
}

impl Write {
    /// What the selection tells apart: the verb and the kind.
    pub fn class(&self) -> (&'static str, &str) {
        (self.verb, &self.resource)
    }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.verb, self.resource)?;
        if !self.name.is_empty() {
            write!(f, "/{}", self.name)?;
        }
        Ok(())
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.resource, self.scope)
    }
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn asked(method: &str, uri: &str, content: &str, body: &str) -> String {
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header("content-type", content);
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        match Asked::of(&parts, body.as_bytes()) {
            Asked::Write(write) => write.to_string(),
            Asked::Watch(set) => format!("watch {set}"),
            Asked::List(set) => format!("list {set}"),
            Asked::Read => "read".to_owned(),
        }
    }

    #[test]
    fn requests_are_named_by_what_they_do_to_which_object() {
        let body = r#"{"metadata": {"name": "x"}}"#;
        let json = "application/json";
        let in_a = "/apis/projectcontour.io/v1alpha1/namespaces/a/extensionservices";
        assert_eq!(asked("POST", in_a, json, body), "create:extensionservices/x");
        let dry = format!("{in_a}?fieldManager=slipway&dryRun=All");
        assert_eq!(asked("POST", &dry, json, body), "try:extensionservices/x");
        let status = format!("{in_a}/x/status");
        let patch = asked("PATCH", &status, "application/json-patch+json", "[]");
        assert_eq!(patch, "patch:extensionservices/status/x");
        assert_eq!(asked("DELETE", "/api/v1/namespaces/a", json, ""), "delete:namespaces/a");
        assert_eq!(
            asked("POST", "/apis/events.k8s.io/v1/namespaces/a/events", json, body),
            "create:events"
        );
    }

    #[test]
    fn reads_of_whole_sets_are_told_from_looks() {
        let owned = "labelSelector=contour.slipway.dev%2Fcontourdeployment";
        let watch = format!("/api/v1/pods?&watch=true&{owned}");
        assert_eq!(asked("GET", &watch, "", ""), "watch pods:ours");
        assert_eq!(
            asked("GET", &format!("/api/v1/pods?&limit=500&{owned}"), "", ""),
            "list pods:ours"
        );
        let look = format!("/api/v1/namespaces/a/pods?{owned}%3Dedge");
        assert_eq!(asked("GET", &look, "", ""), "read");
        assert_eq!(
            asked("GET", "/api/v1/namespaces/a/services?&limit=500", "", ""),
            "list services:a"
        );
        assert_eq!(asked("GET", "/api/v1/namespaces/a/services/x", "", ""), "read");
    }
}
