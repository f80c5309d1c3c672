//! The operator's requests, classified by path, method and body. The classification gives a request the same name in every run,
//! independent of earlier requests.

use std::fmt;

use hyper::Method;
use hyper::http::request::Parts;
use serde_json::Value;

/// The class of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A write.
    Write(Write),
    /// The start of a watch.
    Watch(Set),
    /// A list of a whole set, as before a watch.
    List(Set),
    /// Any other read.
    Read,
}

/// A request that changes an object, or would change it without dry run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Write {
    /// The verb as in the audit log, but with different names for the kinds of patches and `try` for a dry run.
    pub verb: &'static str,
    /// The resource and its subresource, for example `contourdeployments/status`.
    pub resource: String,
    /// The object's namespace; empty for cluster-scoped kinds.
    pub namespace: String,
    /// The object's name; empty if the name differs in each run.
    pub name: String,
}

/// A set that is listed and watched: a resource and a scope.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Set {
    /// The resource.
    pub resource: String,
    /// The scope: all objects, Slipway's objects, or the objects of one namespace.
    pub scope: String,
}

impl Asked {
    /// Classifies a request.
    pub fn of(parts: &Parts, body: &[u8]) -> Self {
        let query = parts.uri.query().unwrap_or_default();
        let Some(path) = ApiPath::of(parts.uri.path()) else {
            return Self::Read;
        };
        if parts.method == Method::GET {
            if !path.name.is_empty() {
                return Self::Read;
            }
            let watches = query.split('&').any(|pair| pair == "watch=true" || pair == "watch=1");
            // The operator's lists before a deletion select one owner; watches select a label with any value.
            let ours = query.contains("labelSelector");
            if !watches && query.contains("%3D") {
                return Self::Read;
            }
            let scope = match (path.namespace, ours) {
                ("", false) => "all".to_owned(),
                ("", true) => "ours".to_owned(),
                (namespace, false) => namespace.to_owned(),
                (namespace, true) => format!("ours-in-{namespace}"),
            };
            let set = Set {
                resource: path.resource.to_owned(),
                scope,
            };
            return if watches { Self::Watch(set) } else { Self::List(set) };
        }
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let name = if path.name.is_empty() {
            body["metadata"]["name"].as_str().unwrap_or_default()
        } else {
            path.name
        };
        let resource = [path.resource, path.subresource].join("/");
        Self::Write(Write {
            verb: verb(parts, query),
            // The names of Events contain the time.
            name: if path.resource == "events" { "" } else { name }.to_owned(),
            resource: resource.trim_end_matches('/').to_owned(),
            namespace: path.namespace.to_owned(),
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

/// The parts of a request's path.
struct ApiPath<'a> {
    namespace: &'a str,
    resource: &'a str,
    name: &'a str,
    subresource: &'a str,
}

impl<'a> ApiPath<'a> {
    /// Parses `/api/v1/…` or `/apis/GROUP/VERSION/…`; returns None for other paths.
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
    /// Returns the verb and the resource, which the selection of plans distinguishes.
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
    fn write_is_named_by_verb_resource_and_object() {
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
    fn list_of_a_whole_set_differs_from_other_reads() {
        let owned = "labelSelector=contour.slipway.dev%2Fcontourdeployment";
        let watch = format!("/api/v1/pods?&watch=true&{owned}");
        assert_eq!(asked("GET", &watch, "", ""), "watch pods:ours");
        assert_eq!(
            asked("GET", &format!("/api/v1/pods?&limit=500&{owned}"), "", ""),
            "list pods:ours"
        );
        let owned_by_one = format!("/api/v1/namespaces/a/pods?{owned}%3Dedge");
        assert_eq!(asked("GET", &owned_by_one, "", ""), "read");
        assert_eq!(
            asked("GET", "/api/v1/namespaces/a/services?&limit=500", "", ""),
            "list services:a"
        );
        assert_eq!(asked("GET", "/api/v1/namespaces/a/services/x", "", ""), "read");
    }
}
