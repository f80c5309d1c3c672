//! The attackers' rights. Each attacker is a user of its own, impersonated, with exactly the rights in this module.

use anyhow::Context as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};

use super::Attacker;
use super::forged::{Victim, object};
use crate::lab::Lab;

const GROUP: &str = "rbac.authorization.k8s.io";

impl Attacker {
    /// All attackers.
    pub const ALL: [Self; 6] = [
        Self::Tenant,
        Self::Owner,
        Self::Founder,
        Self::Binder,
        Self::Provider,
        Self::Editor,
    ];

    /// Returns the user name.
    pub fn user(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Owner => "owner",
            Self::Founder => "founder",
            Self::Binder => "binder",
            Self::Provider => "provider",
            Self::Editor => "editor",
        }
    }

    /// Returns a client that acts as this user.
    pub async fn client(self, lab: &Lab) -> anyhow::Result<Client> {
        let file = lab.world.state.join("kubeconfig");
        let file = Kubeconfig::read_from(&file).with_context(|| format!("reading {}", file.display()))?;
        let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        config.auth_info.impersonate = Some(self.user().to_owned());
        Client::try_from(config).context("creating a client")
    }

    /// Returns the namespace and the ClusterRoles of this attacker.
    fn roles(self, victim: &Victim) -> (&str, &'static [&'static str]) {
        match self {
            Self::Tenant => (&victim.alice, &["edit", "attack-contour-kinds"]),
            Self::Owner => (&victim.alice, &["cluster-admin"]),
            Self::Founder | Self::Provider => (&victim.auth, &["cluster-admin"]),
            Self::Binder => ("", &[]),
            Self::Editor => (&victim.home, &["edit", "attack-contour-kinds"]),
        }
    }
}

/// Returns the objects that are created once: the ClusterRoles and the cluster-wide bindings.
pub fn everywhere() -> Vec<Value> {
    let permission = |group: &str, resource: &str, verbs: &[&str]| json!({"apiGroups": [group], "resources": [resource], "verbs": verbs});
    let write = ["get", "list", "create", "update", "patch", "delete"];
    let mut bind_view = permission(GROUP, "clusterroles", &["bind"]);
    bind_view["resourceNames"] = json!(["view"]);
    let kinds =
        ["extensionservices", "contourconfigurations"].map(|kind| permission("projectcontour.io", kind, &write));
    let roles = [
        ("attack-contour-kinds", json!(kinds)),
        (
            "attack-namespaces",
            json!([permission("", "namespaces", &["create", "get", "delete"])]),
        ),
        (
            "attack-bindings",
            json!([permission(GROUP, "clusterrolebindings", &write), bind_view]),
        ),
    ];
    let roles = roles.map(|(name, rules)| {
        let mut role = object("ClusterRole", "", name);
        role["rules"] = rules;
        role
    });
    let bindings = [
        (Attacker::Founder, "attack-namespaces"),
        (Attacker::Binder, "attack-bindings"),
    ];
    let bindings = bindings.map(|(who, role)| binding("ClusterRoleBinding", "", who, role));
    roles.into_iter().chain(bindings).collect()
}

/// Returns the bindings of one attacker in the namespaces of one ContourDeployment.
pub fn grants(who: Attacker, victim: &Victim) -> Vec<Value> {
    let (namespace, roles) = who.roles(victim);
    roles
        .iter()
        .map(|role| binding("RoleBinding", namespace, who, role))
        .collect()
}

fn binding(kind: &'static str, namespace: &str, who: Attacker, role: &str) -> Value {
    let mut binding = object(kind, namespace, &format!("attack-{}-{role}", who.user()));
    binding["roleRef"] = json!({"apiGroup": GROUP, "kind": "ClusterRole", "name": role});
    binding["subjects"] = json!([{"apiGroup": GROUP, "kind": "User", "name": who.user()}]);
    binding
}
