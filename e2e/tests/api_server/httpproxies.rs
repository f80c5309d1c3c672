//! The optional policy on HTTPProxies, which restricts who may exempt requests from global authorization.

use anyhow::{Context as _, bail, ensure};
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use slipway_e2e::lab::world::beside_others;
use slipway_e2e::lab::{self, Lab, PROMPT, wait};
use slipway_e2e::wait::Look;

/// Returns an HTTPProxy without an exemption.
fn proxy(name: &str) -> Value {
    json!({
        "apiVersion": "projectcontour.io/v1", "kind": "HTTPProxy", "metadata": {"name": name},
        "spec": {
            "virtualhost": {"fqdn": "example.com", "tls": {"secretName": "x"}},
            "routes": [
                {"conditions": [{"prefix": "/"}], "services": [{"name": "x", "port": 80, "weight": 1}]},
                {"conditions": [{"prefix": "/public"}], "services": [{"name": "x", "port": 80}]},
            ],
        },
    })
}

/// Returns each way to exempt requests from global authorization: the field that the policy names, and the HTTPProxy.
fn exemptions() -> Vec<(&'static str, Value)> {
    let with = |change: &dyn Fn(&mut Value)| {
        let mut object = proxy("exempted");
        change(&mut object["spec"]);
        object
    };
    vec![
        (
            "spec.virtualhost.authorization.authPolicy.disabled",
            with(&|spec| spec["virtualhost"]["authorization"] = json!({"authPolicy": {"disabled": true}})),
        ),
        (
            "spec.routes[].authPolicy.disabled",
            with(&|spec| spec["routes"][1]["authPolicy"] = json!({"disabled": true})),
        ),
        // An HTTPProxy that another HTTPProxy includes.
        (
            "spec.routes[].authPolicy.disabled",
            with(&|spec| {
                spec["virtualhost"] = Value::Null;
                spec["routes"][0]["authPolicy"] = json!({"disabled": true});
            }),
        ),
        (
            "spec.virtualhost.authorization.extensionRef",
            with(&|spec| {
                spec["virtualhost"]["authorization"] = json!({"extensionRef": {"namespace": "mine", "name": "yes"}});
            }),
        ),
        (
            "spec.virtualhost.authorization.extensionRef",
            with(&|spec| {
                spec["virtualhost"]["authorization"] = json!({"extensionRef": {"name": "yes"}, "failOpen": true});
            }),
        ),
        (
            "spec.tcpproxy",
            with(&|spec| spec["tcpproxy"] = json!({"services": [{"name": "x", "port": 80}]})),
        ),
        (
            "spec.tcpproxy",
            with(&|spec| spec["tcpproxy"] = json!({"include": {"name": "other"}})),
        ),
    ]
}

/// A client of a user who writes HTTPProxies.
struct Author(Api<DynamicObject>);

impl Author {
    async fn create(&self, object: &Value, dry_run: bool) -> kube::Result<DynamicObject> {
        let parsed = serde_json::from_value(object.clone()).map_err(kube::Error::SerdeError)?;
        let parameters = PostParams {
            dry_run,
            ..PostParams::default()
        };
        self.0.create(&parameters, &parsed).await
    }

    /// Patches an HTTPProxy in a dry run.
    async fn patch(&self, name: &str, patch: &Value) -> kube::Result<DynamicObject> {
        let parameters = PatchParams {
            dry_run: true,
            ..PatchParams::default()
        };
        self.0.patch(name, &parameters, &Patch::Merge(patch)).await
    }
}

/// Returns a user who may write HTTPProxies in the test's namespace. The user also has these ClusterRoles there.
async fn author(lab: &Lab, name: &str, roles: &[&str]) -> anyhow::Result<Author> {
    let user = lab.name(name);
    let writer = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"namespace": lab.namespace, "name": "writer"},
        "rules": [{"apiGroups": ["projectcontour.io"], "resources": ["httpproxies"], "verbs": ["get", "create", "update", "patch", "delete"]}],
    });
    lab.apply(&writer).await?;
    let own = [("Role", "writer")];
    for (kind, role) in own.into_iter().chain(roles.iter().map(|role| ("ClusterRole", *role))) {
        lab.apply(&json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"namespace": lab.namespace, "name": format!("{name}-{role}")},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
        }))
        .await?;
    }
    let client = lab.client_of(&user).await?;
    let author = Author(lab::api(&client, "HTTPProxy", &lab.namespace));
    wait(&format!("{user} may write HTTPProxies"), PROMPT)
        .until(async || {
            let outcome = author.create(&proxy("probe"), true).await;
            Ok(outcome.map_or_else(|error| Look::NotYet(error.to_string()), |_| Look::Reached(())))
        })
        .await?;
    Ok(author)
}

/// Returns the message with which the policy refused the request. Returns an error if the policy did not refuse the request.
fn refused<T>(outcome: kube::Result<T>, what: &str) -> anyhow::Result<String> {
    match outcome {
        Ok(_) => bail!("{what}: the request was accepted"),
        Err(kube::Error::Api(status)) if status.code == 403 && status.message.contains("'slipway-httpproxies'") => {
            Ok(status.message.clone())
        }
        Err(error) => bail!("{what}: {error}"),
    }
}

#[tokio::test]
async fn only_permitted_users_exempt_requests_from_authorization() {
    beside_others("exempt", async |lab: &Lab| {
        lab.world.install_httpproxy_policy().await?;
        let tenant = author(lab, "tenant", &[]).await?;
        let exempter = author(lab, "exempter", &["slipway-httpproxy-exempter"]).await?;
        wait("the policy is in force", PROMPT)
            .until(async || {
                let outcome = tenant.create(&exemptions()[0].1, true).await;
                Ok(Look::when(outcome.is_err(), "the policy is not in force"))
            })
            .await?;
        tenant
            .create(&proxy("plain"), false)
            .await
            .context("an HTTPProxy without an exemption")?;
        for (field, object) in exemptions() {
            let message = refused(tenant.create(&object, true).await, &object.to_string())?;
            for part in [
                field,
                "exempted",
                "--clusterrole=slipway-httpproxy-exempter",
                &lab.name("tenant"),
            ] {
                ensure!(message.contains(part), "{part} is not in: {message}");
            }
            let patch = json!({"spec": object["spec"]});
            refused(
                tenant.patch("plain", &patch).await,
                &format!("adding an exemption: {patch}"),
            )?;
            wait("the exempter may create the exemption", PROMPT)
                .until(async || {
                    let outcome = exempter.create(&object, true).await;
                    Ok(outcome.map_or_else(|error| Look::NotYet(error.to_string()), |_| Look::Reached(())))
                })
                .await?;
            exempter
                .patch("plain", &patch)
                .await
                .with_context(|| format!("adding an exemption: {patch}"))?;
        }
        // Settings that are equivalent to no setting.
        for spec in [
            json!({"virtualhost": {"authorization": {"authPolicy": {"disabled": false}}}}),
            json!({"virtualhost": {"authorization": {"authPolicy": {"context": {"a": "b"}}}}}),
        ] {
            tenant
                .patch("plain", &json!({"spec": spec}))
                .await
                .with_context(|| spec.to_string())?;
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn an_existing_exemption_may_shrink_but_not_grow() {
    beside_others("exempted", async |lab: &Lab| {
        lab.world.install_httpproxy_policy().await?;
        let tenant = author(lab, "tenant", &[]).await?;
        let mut object = proxy("exempted");
        object["metadata"]["namespace"] = json!(lab.namespace);
        object["spec"]["virtualhost"]["authorization"] =
            json!({"authPolicy": {"disabled": true}, "extensionRef": {"name": "own"}, "responseTimeout": "1s"});
        object["spec"]["routes"][1]["authPolicy"] = json!({"disabled": true});
        object["spec"]["tcpproxy"] = json!({"services": [{"name": "x", "port": 80}]});
        lab.create(&object).await?;
        let route = |conditions: Value, disabled: bool, weight: i64| {
            json!({"conditions": conditions, "services": [{"name": "y", "port": 80, "weight": weight}], "authPolicy": {"disabled": disabled}})
        };
        let [root, public, other] = ["/", "/public", "/other"].map(|prefix| json!([{"prefix": prefix}]));
        let authorization = |value: Value| json!({"spec": {"virtualhost": {"authorization": value}}});
        wait("the policy is in force", PROMPT)
            .until(async || {
                let outcome = tenant.patch("exempted", &authorization(json!({"failOpen": true}))).await;
                Ok(Look::when(outcome.is_err(), "the policy is not in force"))
            })
            .await?;

        for patch in [
            json!({"metadata": {"labels": {"a": "b"}, "finalizers": ["example.com/x"]}}),
            // Another route, and other services and weights, also of the exempted route.
            json!({"spec": {"routes": [route(root.clone(), false, 7), route(other.clone(), false, 1), route(public.clone(), true, 3)]}}),
            json!({"spec": {"tcpproxy": {"services": [{"name": "y", "port": 80}]}}}),
            json!({"spec": {"virtualhost": {"corsPolicy": {"allowOrigin": ["*"], "allowMethods": ["GET"]}}}}),
            // Fewer exemptions than before.
            json!({"spec": {"routes": [route(root.clone(), false, 1)]}}),
            json!({"spec": {"tcpproxy": null}}),
            authorization(json!({"authPolicy": {"disabled": false}})),
            authorization(json!({"extensionRef": null})),
            authorization(Value::Null),
        ] {
            tenant.patch("exempted", &patch).await.with_context(|| patch.to_string())?;
        }
        for patch in [
            json!({"spec": {"routes": [route(root.clone(), true, 1), route(public.clone(), true, 1)]}}),
            json!({"spec": {"routes": [route(other, true, 1)]}}),
            // The same exemptions for another host.
            json!({"spec": {"virtualhost": {"fqdn": "other.example.com"}}}),
            authorization(json!({"extensionRef": {"name": "another"}})),
            authorization(json!({"extensionRef": {"namespace": "another"}})),
            authorization(json!({"failOpen": true})),
            authorization(json!({"responseTimeout": "1ms"})),
            authorization(json!({"withRequestBody": {"maxRequestBytes": 1}})),
        ] {
            refused(tenant.patch("exempted", &patch).await, &patch.to_string())?;
        }
        Ok(())
    })
    .await;
}
