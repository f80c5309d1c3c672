//! The objects of the tests' cluster: the authorization service `auth/auth` and a ContourDeployment that references the service.

use serde_json::{Value, json};
use slipway::api::vocabulary::annotations;
use slipway::plan::{Key, Kind, Object};

use super::cluster::{Cluster, described, startup_inputs};

/// Returns a spec that references `auth/auth` for external authorization, with `failOpen: false`.
pub fn asks_auth() -> Value {
    json!({"runtimeSettings": {"globalExtAuth": {"extensionRef": {"namespace": "auth", "name": "auth"}, "failOpen": false}}})
}

/// Returns the same spec with `failOpen: true`: requests pass while Envoy cannot reach the service.
pub fn asks_auth_fail_open() -> Value {
    json!({"runtimeSettings": {"globalExtAuth": {"extensionRef": {"namespace": "auth", "name": "auth"}, "failOpen": true}}})
}

/// Returns a spec with all three roles. Each role references a service in a namespace of its own.
pub fn asks_everything() -> Value {
    json!({"runtimeSettings": {
        "globalExtAuth": {"extensionRef": {"namespace": "auth", "name": "auth"}, "failOpen": true},
        "rateLimitService": {"extensionService": {"namespace": "limits", "name": "limit"}, "domain": "edge", "failOpen": false},
        "tracing": {"extensionService": {"namespace": "traces", "name": "collector"}},
    }})
}

/// Returns the spec of an ExtensionService that points at the Service `service`.
pub fn points_at(service: &str) -> Value {
    json!({"protocol": "h2c", "services": [{"name": service, "port": 9001}]})
}

/// Returns the same spec with a response timeout.
pub fn points_at_with_timeout(service: &str, timeout: &str) -> Value {
    json!({"protocol": "h2c", "services": [{"name": service, "port": 9001}], "timeoutPolicy": {"response": timeout}})
}

/// Returns the key of the ExtensionService `auth/auth`.
pub fn auth() -> Key {
    Key::new(Kind::ExtensionService, "auth", "auth")
}

impl Cluster {
    /// Creates a Service with a ready endpoint. Creates the namespace first if the namespace does not exist.
    pub fn create_service(&mut self, namespace: &str, name: &str) {
        if self.api.get(Kind::Namespace, "", namespace).is_none() {
            self.create_namespace(namespace);
        }
        let spec = json!({"selector": {"app": name}, "ports": [{"port": 9001}]});
        self.create(
            Kind::Service,
            json!({"metadata": {"name": name, "namespace": namespace}, "spec": spec}),
        );
        let metadata = json!({"name": format!("{name}-x"), "namespace": namespace, "labels": {"kubernetes.io/service-name": name}});
        let endpoints = json!([{"addresses": ["10.0.0.7"], "conditions": {"ready": true}}]);
        self.create(
            Kind::EndpointSlice,
            json!({"metadata": metadata, "endpoints": endpoints}),
        );
    }

    pub fn create_extension_service(&mut self, namespace: &str, name: &str, spec: &Value) {
        self.create(
            Kind::ExtensionService,
            json!({"metadata": {"name": name, "namespace": namespace}, "spec": spec}),
        );
    }

    /// Changes the spec of `auth/auth`.
    pub fn edit_auth(&mut self, spec: Value) {
        self.api
            .edit(&auth(), |object| drop(object.content.insert("spec".into(), spec)));
    }

    /// Returns a settled cluster in which the namespace `auth` and the Service `auth/auth` exist, but the ExtensionService does
    /// not.
    pub fn waiting_for_auth() -> Self {
        let mut cluster = Self::new();
        cluster.create_service("auth", "auth");
        cluster.specify(asks_auth());
        cluster.settle();
        cluster
    }

    /// Returns a settled cluster with an ExtensionService that Contour has judged valid.
    pub fn enforcing(spec: &Value) -> Self {
        let mut cluster = Self::new();
        cluster.create_service("auth", "auth");
        cluster.create_extension_service("auth", "auth", spec);
        cluster.specify(asks_auth());
        cluster.settle();
        assert_eq!(cluster.stand_in().at("/spec"), Some(spec));
        cluster
    }

    /// Returns the stand-in that Contour's Deployment names for external authorization.
    pub fn stand_in(&self) -> &Object {
        let captured = startup_inputs(self.contour());
        let ids = captured["standIns"]
            .as_array()
            .expect("stand-ins")
            .iter()
            .filter_map(Value::as_str);
        let id = ids
            .into_iter()
            .find(|id| id.contains("/edge-ext-auth-"))
            .expect("a stand-in for external authorization");
        let (namespace, name) = id.split_once('/').expect("namespace/name");
        self.api
            .get(Kind::ExtensionService, namespace, name)
            .unwrap_or_else(|| panic!("stand-in {id} does not exist"))
    }

    /// Returns the stand-ins of external authorization, as `namespace/name`.
    pub fn stand_ins(&self) -> Vec<String> {
        let stand_ins = self
            .api
            .of_kind(Kind::ExtensionService)
            .filter(|object| object.name().starts_with("edge-ext-auth-"));
        stand_ins.map(id).collect()
    }

    /// Returns the pod template of Contour's Deployment. A change of the template is a rollout.
    pub fn template(&self) -> Value {
        self.contour().at("/spec/template").expect("a template").clone()
    }

    /// Reconciles, and returns descriptions of the writes.
    pub fn writes(&mut self) -> Vec<String> {
        described(&self.reconcile())
    }
}

pub fn id(object: &Object) -> String {
    format!("{}/{}", object.namespace(), object.name())
}

/// Reports whether a stand-in points at its own blackhole.
pub fn is_blackhole(stand_in: &Object) -> bool {
    let services = stand_in.at("/spec/services").and_then(Value::as_array);
    services.is_some_and(|services| {
        let its = |service: &Value| service["name"] == stand_in.name() && service["port"] == 9;
        services.len() == 1 && services.iter().all(its)
    })
}

/// Returns the state that is persisted in an annotation of a stand-in.
pub fn persisted_state(stand_in: &Object) -> Value {
    serde_json::from_str(
        stand_in
            .annotation(annotations::PERSISTED_STATE)
            .expect("persisted state"),
    )
    .expect("JSON")
}
