//! Attacks by users who have some rights and want more. `slipway_e2e::attack` is the table of the attacks.
//!
//! The tests run on a real API server, as users with exactly those rights. The operator runs, is restarted, and is restarted
//! again after the objects of the attackers are deleted. The tests run with the policies of `config/admission`, and without.
//!
//! `ONLY=name,name` selects rows of the table. `APART=1` runs each row on a separate ContourDeployment.

use slipway_e2e::attack::play;
use slipway_e2e::lab::world::{Takes, alone};
use slipway_e2e::lab::{Lab, PATIENT, Thing, wait};
use slipway_e2e::places;
use slipway_e2e::wait::Look;

#[tokio::test]
async fn attacks_are_refused_or_change_nothing() {
    alone("guarded", Takes::Operator, async |lab: &Lab| {
        play::play(lab, true).await
    })
    .await;
}

#[tokio::test]
async fn attacks_change_nothing_without_the_policies() {
    alone("unguarded", Takes::Installation, async |lab: &Lab| {
        let folder = places::repository().join("config/admission");
        lab.world.kubectl().run(&["delete", "-k", &folder.to_string_lossy()]).await?;
        // With the policies, this binding is refused because its ContourDeployment does not exist. Once the binding is accepted,
        // the API server has observed the deletion of the policies.
        let binding = serde_json::json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": "probe", "namespace": lab.namespace, "labels": {"contour.slipway.dev/contourdeployment": "probe"}},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        });
        wait("the policies are no longer in force", PATIENT)
            .until(async || {
                let created = lab.create(&binding).await;
                Ok(created.map_or_else(|error| Look::NotYet(format!("{error:#}")), |_| Look::Reached(())))
            })
            .await?;
        lab.delete(&Thing::new("RoleBinding", &lab.namespace, "probe")).await?;
        play::play(lab, false).await
    })
    .await;
}
