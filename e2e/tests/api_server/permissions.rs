//! Permissions: the operator has no more rights than it needs, and a user has no more rights than granted.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use slipway_e2e::places;
use slipway_e2e::wait::Look;

use slipway_e2e::lab::world::{OPERATOR, beside_others};
use slipway_e2e::lab::{Lab, PROMPT, Thing, contour_deployment, specification, wait};

/// Runs kubectl as another user. Returns stdout, or the error message.
async fn as_user(lab: &Lab, user: &str, arguments: &[&str]) -> Result<String, String> {
    let arguments = [&["--as", user], arguments].concat();
    lab.world
        .kubectl()
        .run(&arguments)
        .await
        .map_err(|error| format!("{error:#}"))
}

/// Reports whether the user has this permission.
async fn may(lab: &Lab, user: &str, question: &[&str]) -> bool {
    let answer = as_user(lab, user, &[&["auth", "can-i"], question].concat()).await;
    answer.is_ok_and(|text| text.trim() == "yes")
}

fn cluster_role_binding(name: &str, role: &str, labels: &Value) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name, "labels": labels},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "namespace": "slipway-system", "name": "slipway"}],
    })
}

/// Creates an object as another user in a dry run. Returns stdout of kubectl, or the error message.
async fn try_create(lab: &Lab, user: &str, object: &Value) -> anyhow::Result<Result<String, String>> {
    let file = lab.file(object)?;
    Ok(as_user(lab, user, &["create", "--dry-run=server", "-f", &file]).await)
}

#[tokio::test]
async fn the_operator_has_rights_only_beside_contour_deployments() {
    beside_others("reach", async |lab: &Lab| {
        let edge = lab.edge(&specification("nowhere")).await?;
        lab.status(&edge, "the operator has reconciled edge", PROMPT, |status| {
            !status.extension_services.is_empty()
        })
        .await?;
        for verb in ["get", "list", "watch"] {
            for place in [
                &["-n", "kube-system"][..],
                &["-n", "slipway-system"],
                &["--all-namespaces"],
            ] {
                ensure!(
                    !may(lab, OPERATOR, &[&[verb, "secrets"], place].concat()).await,
                    "{verb} secrets {place:?}"
                );
            }
            ensure!(
                may(lab, OPERATOR, &[verb, "secrets", "-n", &lab.namespace]).await,
                "{verb} secrets"
            );
        }
        for (verb, resource) in [
            ("create", "deployments.apps"),
            ("delete", "daemonsets.apps"),
            ("create", "serviceaccounts"),
            ("create", "pods"),
            ("create", "secrets"),
        ] {
            ensure!(
                !may(lab, OPERATOR, &[verb, resource, "-n", "kube-system"]).await,
                "{verb} {resource}"
            );
        }
        for question in [
            &["create", "contourdeployments.contour.slipway.dev", "-n", &lab.namespace][..],
            &["create", "pods", "-n", &lab.namespace],
            &["create", "pods", "--subresource=exec", "-n", &lab.namespace],
            &["create", "clusterroles"],
            &["update", "clusterroles"],
            &["escalate", "clusterroles"],
            &["bind", "clusterroles/cluster-admin"],
            &["impersonate", "users"],
            &["impersonate", "serviceaccounts"],
            &["create", "serviceaccounts", "--subresource=token", "-n", &lab.namespace],
            &["*", "*"],
        ] {
            ensure!(!may(lab, OPERATOR, question).await, "{question:?}");
        }
        edge.delete().await?;
        lab.wait_until_nothing_is_left(&edge).await?;
        wait(
            "the operator may no longer read Secrets without a ContourDeployment",
            PROMPT,
        )
        .until(async || {
            let may_read = may(lab, OPERATOR, &["get", "secrets", "-n", &lab.namespace]).await;
            Ok(Look::when(!may_read, "the operator still may"))
        })
        .await
    })
    .await;
}

#[tokio::test]
async fn the_operator_cannot_grant_itself_more_rights() {
    beside_others("more", async |lab: &Lab| {
        let labels = json!({"contour.slipway.dev/contourdeployment": "edge", "contour.slipway.dev/contourdeployment-namespace": lab.namespace});
        let name = format!("slipway:{}:edge:contour", lab.namespace);
        for role in ["cluster-admin", "slipway-secrets", "slipway-operand", "slipway-contour", "edit"] {
            let outcome = try_create(lab, OPERATOR, &cluster_role_binding(&name, role, &labels)).await?;
            ensure!(outcome.is_err(), "the operator may bind {role} to itself in the whole cluster");
        }
        // An administrator cannot do so by mistake either.
        for role in ["slipway-secrets", "slipway-operand"] {
            let outcome = try_create(lab, "kubernetes-admin-by-mistake", &cluster_role_binding("mistake", role, &json!({}))).await?;
            ensure!(outcome.is_err());
            let file = lab.file(&cluster_role_binding("mistake", role, &json!({})))?;
            let outcome = lab.world.kubectl().run(&["create", "--dry-run=server", "-f", &file]).await;
            let text = outcome.err().map(|error| format!("{error:#}")).unwrap_or_default();
            ensure!(text.contains(role) && text.contains("must not be bound cluster-wide"), "{text}");
        }
        let binding = |role: &str, labels: &Value| {
            let mut binding = cluster_role_binding("more", role, labels);
            binding["kind"] = json!("RoleBinding");
            binding["metadata"]["namespace"] = json!(lab.namespace);
            binding
        };
        let outcome = try_create(lab, OPERATOR, &binding("slipway-secrets", &labels)).await?;
        ensure!(outcome.as_ref().is_err_and(|text| text.contains("no params found")), "without a ContourDeployment: {outcome:?}");
        lab.edge(&specification("nowhere")).await?;
        // The operator needs this binding, and may create it once the API server has observed the ContourDeployment. Before that,
        // the API server also refuses all other bindings because of the missing ContourDeployment.
        wait("the operator may bind slipway-secrets to itself beside a ContourDeployment", PROMPT)
            .until(async || {
                let outcome = try_create(lab, OPERATOR, &binding("slipway-secrets", &labels)).await?;
                Ok(Look::when(outcome.is_ok(), format!("{outcome:?}")))
            })
            .await?;
        let outcome = try_create(lab, OPERATOR, &binding("slipway-secrets", &json!({}))).await?;
        ensure!(outcome.as_ref().is_err_and(|text| text.contains("only its own bindings")), "without the label: {outcome:?}");
        let mut for_others = binding("slipway-secrets", &labels);
        for_others["subjects"][0]["name"] = json!("default");
        let outcome = try_create(lab, OPERATOR, &for_others).await?;
        ensure!(outcome.as_ref().is_err_and(|text| text.contains("to nobody but itself")), "for others: {outcome:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn the_operator_cannot_change_objects_of_other_users() {
    beside_others("not-its-own", async |lab: &Lab| {
        let edge = lab.edge(&specification("nowhere")).await?;
        lab.status(&edge, "the operator has reconciled edge", PROMPT, |status| !status.extension_services.is_empty()).await?;
        lab.apply(&json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": lab.namespace, "name": "theirs"}, "spec": {"ports": [{"port": 1}]}})).await?;
        lab.apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": lab.namespace, "name": "theirs"}})).await?;
        for object in ["service/theirs", "secret/theirs"] {
            for verb in [&["delete", "--dry-run=server"][..], &["label", "--dry-run=server", "--overwrite"]] {
                let arguments = [verb, &["-n", &lab.namespace, object]].concat();
                let arguments = if verb[0] == "label" { [&arguments[..], &["contour.slipway.dev/contourdeployment=edge"]].concat() } else { arguments };
                let outcome = as_user(lab, OPERATOR, &arguments).await;
                ensure!(outcome.as_ref().is_err_and(|text| text.contains("only its own objects")), "{arguments:?}: {outcome:?}");
            }
        }
        let patch = json!({"spec": {"contour": {"logLevel": "debug"}}}).to_string();
        let outcome = as_user(lab, OPERATOR, &["patch", "cdep", "edge", "-n", &lab.namespace, "--type=merge", "-p", &patch]).await;
        ensure!(outcome.as_ref().is_err_and(|text| text.contains("never changes the spec")), "{outcome:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn writing_a_contour_deployment_needs_the_right_to_bind_roles() {
    beside_others("person", async |lab: &Lab| {
        let (tenant, editor) = (lab.name("tenant"), lab.name("editor"));
        let grant = |kind: &str, name: &str, role: &str, user: &str| {
            let mut binding = cluster_role_binding(&lab.name(name), role, &json!({}));
            binding["kind"] = json!(kind);
            binding["subjects"] = json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]);
            if kind == "RoleBinding" {
                binding["metadata"]["namespace"] = json!(lab.namespace);
            }
            binding
        };
        // All rights in the namespace, including `bind`, do not permit the tenant to grant Contour's cluster-wide read access.
        lab.apply(&grant("RoleBinding", "tenant", "cluster-admin", &tenant)).await?;
        lab.apply(&grant("ClusterRoleBinding", "editor", "slipway-contourdeployment-editor", &editor)).await?;
        let object = contour_deployment(&lab.namespace, &specification("nowhere"));
        wait("the API server has observed the grants", PROMPT)
            .until(async || Ok(Look::when(may(lab, &tenant, &["create", "cdep", "-n", &lab.namespace]).await && may(lab, &editor, &["create", "cdep", "-n", &lab.namespace]).await, "the tenant or the editor may not create ContourDeployments")))
            .await?;

        let outcome = try_create(lab, &tenant, &object).await?;
        let message = outcome.err().context("the tenant's request was accepted")?;
        for part in [&tenant, "may not create a ContourDeployment", "--clusterrole=slipway-contour-binder", "kubectl create clusterrolebinding"] {
            ensure!(message.contains(part), "{part} is not in: {message}");
        }
        let file = lab.file(&object)?;
        as_user(lab, &editor, &["create", "-f", &file]).await.map_err(anyhow::Error::msg)?;

        // The tenant may not change the spec either, but may change the metadata.
        let edge = ["cdep", "edge", "-n", &lab.namespace];
        let spec = json!({"spec": {"contour": {"logLevel": "debug"}}}).to_string();
        let patch = |value: &str| [&["patch"], &edge[..], &["--type=merge", "-p"]].concat().into_iter().map(str::to_owned).chain([value.to_owned()]).collect::<Vec<_>>();
        let outcome = run_as_user(lab, &tenant, &patch(&spec)).await;
        ensure!(outcome.as_ref().is_err_and(|text| text.contains("--clusterrole=slipway-contour-binder")), "{outcome:?}");
        let metadata = json!({"metadata": {"labels": {"a": "b"}, "annotations": {"a": "b"}, "finalizers": ["example.com/theirs"]}}).to_string();
        run_as_user(lab, &tenant, &patch(&metadata)).await.map_err(anyhow::Error::msg)?;
        run_as_user(lab, &tenant, &patch(&json!({"metadata": {"finalizers": null}}).to_string())).await.map_err(anyhow::Error::msg)?;
        run_as_user(lab, &editor, &patch(&spec)).await.map_err(anyhow::Error::msg)?;

        // The command in the message grants the missing permission.
        lab.apply(&grant("ClusterRoleBinding", "binder", "slipway-contour-binder", &tenant)).await?;
        let other = json!({"spec": {"contour": {"logLevel": "info"}}}).to_string();
        wait("the tenant may change the spec, with slipway-contour-binder", PROMPT)
            .until(async || {
                let outcome = run_as_user(lab, &tenant, &patch(&other)).await;
                Ok(Look::when(outcome.is_ok(), format!("{outcome:?}")))
            })
            .await?;
        for name in ["editor", "binder"] {
            lab.delete(&Thing::new("ClusterRoleBinding", "", &lab.name(name))).await?;
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn setting_a_pod_template_needs_the_right_to_create_pods() {
    beside_others("author", async |lab: &Lab| {
        let author = lab.name("author");
        let grant = |kind: &str, name: &str, role: &str| {
            let mut binding = cluster_role_binding(&lab.name(name), role, &json!({}));
            binding["kind"] = json!(kind);
            binding["metadata"]["namespace"] = if kind == "RoleBinding" {
                json!(lab.namespace)
            } else {
                Value::Null
            };
            binding["subjects"] = json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": author}]);
            binding
        };
        lab.apply(&grant(
            "ClusterRoleBinding",
            "author",
            "slipway-contourdeployment-editor",
        ))
        .await?;
        lab.edge(&specification("nowhere")).await?;
        let patch = async |spec: &Value| {
            let patch = json!({"spec": spec}).to_string();
            as_user(
                lab,
                &author,
                &[
                    "patch",
                    "cdep",
                    "edge",
                    "-n",
                    &lab.namespace,
                    "--type=merge",
                    "-p",
                    &patch,
                ],
            )
            .await
        };
        wait("the author may change the spec", PROMPT)
            .until(async || {
                let outcome = patch(&json!({"contour": {"logLevel": "debug"}})).await;
                Ok(Look::when(outcome.is_ok(), format!("{outcome:?}")))
            })
            .await?;
        let overlay = |name: &str| json!({"podTemplate": {"spec": {"priorityClassName": name}}});
        for component in ["contour", "envoy"] {
            let outcome = patch(&json!({component: overlay("system-cluster-critical")})).await;
            let is_refused = |text: &String| text.contains("requires permission to create pods in namespace");
            ensure!(outcome.as_ref().is_err_and(is_refused), "{component}: {outcome:?}");
        }
        // Without the right to create pods, the author may still change the rest beside a pod template of another user.
        let mut spec = specification("nowhere");
        spec["envoy"]["podTemplate"] = overlay("system-cluster-critical")["podTemplate"].clone();
        lab.edge(&spec).await?;
        patch(&json!({"contour": {"logLevel": "info"}}))
            .await
            .map_err(anyhow::Error::msg)?;
        lab.apply(&grant("RoleBinding", "pods", "edit")).await?;
        wait(
            "the author may set a pod template, with the right to create pods",
            PROMPT,
        )
        .until(async || {
            let outcome = patch(&json!({"contour": overlay("system-node-critical")})).await;
            Ok(Look::when(outcome.is_ok(), format!("{outcome:?}")))
        })
        .await?;
        lab.delete(&Thing::new("ClusterRoleBinding", "", &lab.name("author")))
            .await
    })
    .await;
}

/// Runs kubectl as another user, with owned arguments. Returns stdout, or the error message.
async fn run_as_user(lab: &Lab, user: &str, arguments: &[String]) -> Result<String, String> {
    as_user(lab, user, &arguments.iter().map(String::as_str).collect::<Vec<_>>()).await
}

#[test]
fn no_slipway_role_has_a_wildcard_or_an_escalating_verb() {
    let folder = places::repository().join("config/rbac");
    let mut rules = 0;
    for entry in std::fs::read_dir(&folder).expect("config/rbac exists") {
        let path = entry.expect("the entry is readable").path();
        let text = std::fs::read_to_string(&path).expect("the file is readable");
        for document in text.split("\n---\n") {
            let role: Value =
                serde_saphyr::from_str(document).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            for rule in role["rules"].as_array().into_iter().flatten() {
                rules += 1;
                for field in ["apiGroups", "resources", "verbs", "nonResourceURLs", "resourceNames"] {
                    let values: Vec<_> = rule[field]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .filter_map(Value::as_str)
                        .collect();
                    assert!(
                        !values.iter().any(|value| value.contains('*')),
                        "{}: {rule}",
                        path.display()
                    );
                    assert!(
                        !values.iter().any(|value| ["escalate", "impersonate"].contains(value)),
                        "{}: {rule}",
                        path.display()
                    );
                    let binds_anything =
                        values.contains(&"bind") && rule["resourceNames"].as_array().is_none_or(Vec::is_empty);
                    assert!(!binds_anything, "{}: {rule}", path.display());
                }
            }
            let name = role["metadata"]["name"].as_str().unwrap_or_default();
            let aggregates = role["metadata"]["labels"]
                .as_object()
                .is_some_and(|labels| labels.keys().any(|key| key.contains("aggregate-to")));
            assert!(!aggregates, "{name} is aggregated into a role of other users");
        }
    }
    assert!(rules > 10, "only {rules} rules were read");
}
