//! Requests to the API server: one function for each verb. All kinds have the same form, and each call has a timeout.

use std::time::Duration;

use http::{Method, Request};
use kube::api::ListParams;
use kube::core::Status;
use kube::{Api, Client};
use serde_json::{Value, json};

use super::decode::{Decoded, Form};
use crate::api::vocabulary::{FIELD_MANAGER, FINALIZER};
use crate::plan::{Key, Kind, Object, Target};

/// A request without an answer after this time has failed. The watches show its effect.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The reasons of the API server (`StatusReason…` in apimachinery v0.34, `pkg/apis/meta/v1/types.go`).
const REASONS: [&str; 19] = [
    "AlreadyExists",
    "BadRequest",
    "Conflict",
    "Expired",
    "Forbidden",
    "Gone",
    "InternalError",
    "Invalid",
    "MethodNotAllowed",
    "NotAcceptable",
    "NotFound",
    "RequestEntityTooLarge",
    "ServerTimeout",
    "ServiceUnavailable",
    "StoreReadError",
    "Timeout",
    "TooManyRequests",
    "Unauthorized",
    "UnsupportedMediaType",
];

/// The reason for a failed request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused the request.
    #[error("{}", .0.message)]
    Api(Box<Status>),
    /// The API server did not answer in time.
    #[error("the API server did not answer within {} s", TIMEOUT.as_secs())]
    TimedOut,
    /// The request got no answer.
    #[error("no answer of the API server: {0}")]
    Transport(#[source] kube::Error),
    /// The answer is not an object.
    #[error("an answer of the API server could not be read: {0}")]
    Answer(#[from] serde_json::Error),
}

impl Error {
    /// Returns the HTTP status, or 0 without an answer.
    pub fn code(&self) -> u16 {
        match self {
            Self::Api(status) => status.code,
            _ => 0,
        }
    }

    /// Returns the reason, for example `AlreadyExists`, `Conflict` or `NotFound`.
    pub fn reason(&self) -> &str {
        match self {
            Self::Api(status) => &status.reason,
            _ => "",
        }
    }

    /// Returns the reason as a metric label. A webhook or a proxy may send any text. The label is one of a fixed set.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Api(status) => {
                let known = REASONS.into_iter().find(|reason| *reason == status.reason);
                known.unwrap_or("Other")
            }
            Self::TimedOut => "NoAnswer",
            Self::Transport(_) => "Transport",
            Self::Answer(_) => "Unreadable",
        }
    }

    /// Reports whether a `test` of a JSON patch failed. The API server (1.34) answers such a patch with a 422 without causes. A 422 about
    /// the content of the object has causes.
    pub fn is_failed_test(&self) -> bool {
        match self {
            Self::Api(status) => {
                status.code == 422 && status.details.as_ref().is_none_or(|details| details.causes.is_empty())
            }
            _ => false,
        }
    }

    /// Reports whether the namespace is being deleted (a cause in the details of a 403).
    pub fn is_namespace_terminating(&self) -> bool {
        match self {
            Self::Api(status) => {
                let causes = status.details.iter().flat_map(|details| &details.causes);
                causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
            }
            _ => false,
        }
    }
}

/// Whether a write has an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The API server stores the object.
    Stored,
    /// The API server only validates the object.
    DryRun,
}

impl Effect {
    /// Adds the parameter of a dry run to a URL.
    fn on(self, url: String) -> String {
        match self {
            Self::Stored => url,
            Self::DryRun if url.contains('?') => format!("{url}&dryRun=All"),
            Self::DryRun => format!("{url}?dryRun=All"),
        }
    }
}

/// Creates an object. Strict: an unknown field is an error.
pub async fn create(client: &Client, object: &Object, effect: Effect) -> Result<Object, Error> {
    let url = format!(
        "{}?fieldManager={FIELD_MANAGER}&fieldValidation=Strict",
        collection(object.kind, object.namespace())
    );
    send(
        client,
        object.kind,
        Method::POST,
        &effect.on(url),
        "application/json",
        Some(object.to_json()),
    )
    .await
}

/// Performs a forced server-side apply. Strict: an unknown field is an error.
pub async fn apply(client: &Client, object: &Object, effect: Effect) -> Result<Object, Error> {
    let url = format!(
        "{}?fieldManager={FIELD_MANAGER}&force=true&fieldValidation=Strict",
        url(&object.key())
    );
    send(
        client,
        object.kind,
        Method::PATCH,
        &effect.on(url),
        "application/apply-patch+yaml",
        Some(object.to_json()),
    )
    .await
}

/// Changes the entry of the creation in `managedFields` to an entry of server-side apply, so that a later apply can remove fields.
pub async fn adopt_creation(client: &Client, key: &Key, entry: usize, resource_version: &str) -> Result<Object, Error> {
    let patch = json!([
        {"op": "test", "path": "/metadata/resourceVersion", "value": resource_version},
        {"op": "test", "path": format!("/metadata/managedFields/{entry}/manager"), "value": FIELD_MANAGER},
        {"op": "replace", "path": format!("/metadata/managedFields/{entry}/operation"), "value": "Apply"},
    ]);
    send(
        client,
        key.kind,
        Method::PATCH,
        &url(key),
        "application/json-patch+json",
        Some(patch),
    )
    .await
}

/// Replaces an object, if the object still has the resourceVersion of `object`.
pub async fn replace(client: &Client, object: &Object, effect: Effect) -> Result<Object, Error> {
    let url = format!("{}?fieldManager={FIELD_MANAGER}", url(&object.key()));
    send(
        client,
        object.kind,
        Method::PUT,
        &effect.on(url),
        "application/json",
        Some(object.to_json()),
    )
    .await
}

/// Deletes an object, if the object still has this uid. Returns the object if finalizers keep it.
pub async fn delete(client: &Client, target: &Target, effect: Effect) -> Result<Option<Object>, Error> {
    let body = json!({
        "apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background",
        "preconditions": {"uid": target.uid},
    });
    let answer = request(
        client,
        Method::DELETE,
        &effect.on(url(&target.key)),
        "application/json",
        Some(body),
    )
    .await?;
    if answer["kind"] == "Status" {
        return Ok(None);
    }
    let object = Object::from_json(target.key.kind, answer)?;
    Ok(object
        .metadata
        .finalizers
        .as_ref()
        .is_some_and(|finalizers| !finalizers.is_empty())
        .then_some(object))
}

/// Adds or removes Slipway's finalizer, if the object still has the observed resourceVersion.
pub async fn set_finalizer(client: &Client, target: &Target, held: bool, effect: Effect) -> Result<Object, Error> {
    let mut finalizers = target.other_finalizers.clone();
    if held {
        finalizers.push(FINALIZER.to_owned());
    }
    let patch =
        json!({"metadata": {"uid": target.uid, "resourceVersion": target.resource_version, "finalizers": finalizers}});
    send(
        client,
        target.key.kind,
        Method::PATCH,
        &effect.on(url(&target.key)),
        "application/merge-patch+json",
        Some(patch),
    )
    .await
}

/// Replaces the status of a ContourDeployment. Server-side apply would require a valid object, and Slipway must also report the status of
/// an invalid one.
pub async fn replace_status(client: &Client, key: &Key, status: &Value) -> Result<Object, Error> {
    let url = format!("{}/status?fieldManager={FIELD_MANAGER}-status", url(key));
    let patch = json!([{"op": "add", "path": "/status", "value": status}]);
    send(
        client,
        key.kind,
        Method::PATCH,
        &url,
        "application/json-patch+json",
        Some(patch),
    )
    .await
}

/// Reads one object from the API server.
pub async fn get(client: &Client, key: &Key) -> Result<Option<Object>, Error> {
    match request(client, Method::GET, &url(key), "application/json", None).await {
        Ok(answer) => Ok(Some(Object::from_json(key.kind, answer)?)),
        Err(error) if error.code() == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

/// Lists the objects of a kind in a namespace that match a label selector, from the API server.
pub async fn list(client: &Client, kind: Kind, namespace: &str, selector: &str) -> Result<Vec<Object>, Error> {
    let selector = selector.replace('=', "%3D").replace(',', "%2C").replace('/', "%2F");
    let url = format!("{}?labelSelector={selector}", collection(kind, namespace));
    let mut answer = request(client, Method::GET, &url, "application/json", None).await?;
    let items = answer["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
    Ok(items
        .into_iter()
        .map(|item| Object::from_json(kind, item))
        .collect::<Result<_, _>>()?)
}

/// Lists the same objects page by page, and decodes only the parts that `form` keeps.
pub async fn list_form<F: Form>(
    client: &Client,
    kind: Kind,
    namespace: &str,
    selector: &str,
) -> Result<Vec<Object>, Error> {
    let api: Api<Decoded<F>> = Api::namespaced_with(client.clone(), namespace, &kind);
    let mut parameters = ListParams::default().labels(selector).limit(F::PAGE);
    let mut found = Vec::new();
    loop {
        let page = answered(api.list(&parameters)).await?;
        found.extend(page.items.into_iter().map(|found| found.into_object(kind)));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => return Ok(found),
        }
    }
}

async fn send(
    client: &Client,
    kind: Kind,
    method: Method,
    url: &str,
    content: &str,
    body: Option<Value>,
) -> Result<Object, Error> {
    Ok(Object::from_json(
        kind,
        request(client, method, url, content, body).await?,
    )?)
}

async fn request(
    client: &Client,
    method: Method,
    url: &str,
    content: &str,
    body: Option<Value>,
) -> Result<Value, Error> {
    let body = body
        .map(|body| serde_json::to_vec(&body))
        .transpose()?
        .unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(url)
        .header(http::header::CONTENT_TYPE, content)
        .body(body);
    let request = request.expect("method, URL and header are of valid characters");
    answered(client.request::<Value>(request)).await
}

/// Returns the answer to a request, or an error after the timeout.
async fn answered<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(TIMEOUT, request).await {
        Err(_) => Err(Error::TimedOut),
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) => Err(Error::Api(status)),
        Ok(Err(error)) => Err(Error::Transport(error)),
    }
}

fn collection(kind: Kind, namespace: &str) -> String {
    let root = if kind.group().is_empty() {
        format!("/api/{}", kind.version())
    } else {
        format!("/apis/{}", kind.api_version())
    };
    let plural = kind.plural();
    if kind.is_namespaced() && !namespace.is_empty() {
        format!("{root}/namespaces/{namespace}/{plural}")
    } else {
        format!("{root}/{plural}")
    }
}

fn url(key: &Key) -> String {
    format!("{}/{}", collection(key.kind, &key.namespace), key.name)
}
