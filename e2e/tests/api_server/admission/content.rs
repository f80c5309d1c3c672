//! The policies on content: the fields that steer traffic, external IPs, and the roles that the operator may bind.

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use slipway_e2e::edge::{OWNER_NAME, OWNER_NAMESPACE};
use slipway_e2e::lab::players::Kubelet;
use slipway_e2e::lab::world::{OPERATOR, beside_others};
use slipway_e2e::lab::{Lab, PROMPT, Thing, specification, wait};
use slipway_e2e::wait::Look;

use super::{MANAGED_BY, User, administrator, refused, settled_edge_and_objects, unmarked};

#[tokio::test]
async fn only_the_operator_changes_content_that_steers_traffic() {
    beside_others("content", async |lab: &Lab| {
        let _kubelet = Kubelet::of(&lab.client, &lab.namespace);
        let (_, auth, made) = settled_edge_and_objects(lab).await?;
        let administrator = administrator(lab);
        let mut guarded = 0;
        for thing in &made {
            let blackhole = thing.kind == "Service" && thing.namespace == auth;
            let (refused_patches, accepted_patches): (Vec<Value>, Vec<Value>) = match thing.kind {
                "ContourConfiguration" => (
                    vec![
                        json!({"spec": {"globalExtAuth": {"authPolicy": {"disabled": true}}}}),
                        json!({"spec": {"globalExtAuth": null}}),
                        json!({"spec": {"enableExternalNameService": true}}),
                    ],
                    vec![],
                ),
                "ExtensionService" => (
                    vec![
                        json!({"spec": {"services": [{"name": "mallory", "port": 1}]}}),
                        json!({"spec": {"loadBalancerPolicy": {"strategy": "Random"}}}),
                    ],
                    vec![],
                ),
                "Service" if blackhole => (
                    vec![
                        json!({"spec": {"selector": {"app": "mallory"}, "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"]}}),
                        json!({"spec": {"type": "ExternalName", "externalName": "example.com", "clusterIP": null, "clusterIPs": null}}),
                        json!({"spec": {"publishNotReadyAddresses": true}}),
                    ],
                    vec![],
                ),
                "Secret" => (
                    vec![
                        json!({"data": {"tls.crt": "bWFsbG9yeQ=="}}),
                        json!({"stringData": {"more": "x"}}),
                        json!({"immutable": true}),
                    ],
                    vec![],
                ),
                "Service" => (
                    vec![],
                    vec![json!({"spec": {"sessionAffinity": "ClientIP"}}), json!({"spec": {"selector": {"app": "x"}}})],
                ),
                "Deployment" => (vec![], vec![json!({"spec": {"replicas": 7}}), json!({"spec": {"paused": true}})]),
                "ServiceAccount" => (vec![], vec![json!({"imagePullSecrets": [{"name": "x"}]})]),
                "RoleBinding" | "ClusterRoleBinding" => (vec![], vec![json!({"subjects": null})]),
                other => bail!("the test has no case for kind {other}"),
            };
            guarded += usize::from(!refused_patches.is_empty());
            for patch in refused_patches {
                let message = refused(administrator.try_patch(thing, &patch).await, "slipway-content", &format!("{thing} {patch}"))?;
                let owner = format!("ContourDeployment {}/edge", lab.namespace);
                ensure!(message.contains(&thing.name) && message.contains(&owner), "{message}");
            }
            for patch in accepted_patches {
                administrator.try_patch(thing, &patch).await.with_context(|| format!("{thing} {patch}"))?;
            }
        }
        // A configuration, a stand-in with its blackhole, three Secrets.
        ensure!(guarded == 6, "the policy guards {guarded} of these objects, expected 6: {made:?}");

        // Other users may change the same fields of their own objects.
        for (kind, patch) in [
            ("ContourConfiguration", json!({"spec": {"globalExtAuth": {"extensionRef": {"name": "x", "namespace": "y"}}}})),
            ("ExtensionService", json!({"spec": {"services": [{"name": "y", "port": 2}]}})),
            ("Service", json!({"spec": {"selector": {"app": "x"}}})),
            ("Secret", json!({"data": {"a": "eA=="}})),
        ] {
            lab.create(&unmarked(kind, &lab.namespace, "foreign")).await?;
            let thing = Thing::new(kind, &lab.namespace, "foreign");
            administrator.try_patch(&thing, &patch).await.with_context(|| format!("{thing} {patch}"))?;
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn the_operator_sets_no_external_ips_and_keeps_those_of_others() {
    beside_others("external-ips", async |lab: &Lab| {
        lab.edge(&specification("nowhere")).await?;
        let service = Thing::new("Service", &lab.namespace, "edge-envoy");
        lab.wait_until_exists(&service, PROMPT).await?;
        let token_holder = lab.client_of(OPERATOR).await?;
        let operator = User { client: &token_holder };
        let with = |address: &str| json!({"spec": {"externalIPs": [address]}});
        let message = refused(
            operator.try_patch(&service, &with("192.0.2.1")).await,
            "slipway-operator-objects",
            "external IPs on Envoy's Service",
        )?;
        ensure!(message.contains("externalIPs"), "{message}");
        let mut made = unmarked("Service", &lab.namespace, "made");
        made["metadata"]["labels"] = json!({OWNER_NAME: "edge", OWNER_NAMESPACE: lab.namespace});
        operator
            .try_create(&made)
            .await
            .context("a Service without external IPs")?;
        made["spec"]["externalIPs"] = json!(["192.0.2.1"]);
        refused(
            operator.try_create(&made).await,
            "slipway-operator-objects",
            "external IPs on a new Service",
        )?;

        // The operator keeps external IPs of other users, and still repairs its own fields of the Service.
        lab.patch(&service, &with("192.0.2.7")).await?;
        lab.patch(&service, &json!({"metadata": {"labels": {MANAGED_BY: null}}}))
            .await?;
        wait("the label is restored", PROMPT)
            .until(async || {
                let labels = lab.read(&service).await?["metadata"]["labels"].clone();
                Ok(Look::when(labels[MANAGED_BY] == "slipway", labels.to_string()))
            })
            .await?;
        let now = lab.read(&service).await?["spec"]["externalIPs"].clone();
        ensure!(now == json!(["192.0.2.7"]), "{now}");
        let both = json!({"spec": {"externalIPs": ["192.0.2.7", "192.0.2.1"]}});
        refused(
            operator.try_patch(&service, &both).await,
            "slipway-operator-objects",
            "one more external IP",
        )?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn the_operator_token_binds_only_the_documented_roles() {
    beside_others("token", async |lab: &Lab| {
        let client = lab.client_of(OPERATOR).await?;
        let holder = User { client: &client };
        let binding = |kind: &str, namespace: &str, name: &str, role: &str| {
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind,
                "metadata": {"namespace": namespace, "name": name, "labels": {OWNER_NAME: "none", OWNER_NAMESPACE: lab.namespace}},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                "subjects": [{"kind": "ServiceAccount", "namespace": lab.namespace, "name": "default"}],
            })
        };
        // Even without a ContourDeployment, the holder of the token can grant Contour's read access to any account. The holder also
        // chooses the ContourDeployment in the name of the binding.
        let everything = binding("ClusterRoleBinding", "", &format!("slipway:{}:none:contour", lab.namespace), "slipway-contour");
        holder.try_create(&everything).await.context("binding slipway-contour to an account")?;
        // The holder cannot reach workloads and Secrets of a namespace without a ContourDeployment.
        for role in ["slipway-operand", "slipway-secrets"] {
            let mut own = binding("RoleBinding", &lab.namespace, "own", role);
            own["subjects"][0] = json!({"kind": "ServiceAccount", "namespace": "slipway-system", "name": "slipway"});
            let outcome = holder.try_create(&own).await;
            let message = outcome.err().map(|error| error.to_string()).unwrap_or_default();
            ensure!(message.contains("no params found"), "{role}: {message}");
            own["metadata"]["labels"] = json!({});
            refused(holder.try_create(&own).await, "slipway-operator-bindings", "without the label")?;
        }
        Ok(())
    })
    .await;
}
