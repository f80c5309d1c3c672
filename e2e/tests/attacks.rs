//! What people may try who have some rights and want more: `slipway_e2e::attack` is the table of it. On a real API server, as
//! users with exactly those rights, with the operator running, restarted, and restarted after what they made is gone; with the
//! policies of `config/admission`, and without.
//!
//! `ONLY=name,name` tries these rows alone; `APART=1` each of them on a ContourDeployment of its own.

use slipway_e2e::attack::play;
use slipway_e2e::lab::world::{Takes, alone};
use slipway_e2e::lab::{Lab, PATIENT, Thing, wait};
use slipway_e2e::places;
use slipway_e2e::wait::Look;

#[tokio::test]
async fn what_somebody_makes_who_may_not_steer_contour_is_refused_or_changes_nothing() {
    alone("guarded", Takes::Operator, async |lab: &Lab| {
        play::play(lab, true).await
    })
    .await;
}

#[tokio::test]
async fn without_the_policies_it_changes_nothing_either() {
    alone("unguarded", Takes::Installation, async |lab: &Lab| {
        let folder = places::repository().join("config/admission");
        lab.world.kubectl().run(&["delete", "-k", &folder.to_string_lossy()]).await?;
        // What was refused for want of a ContourDeployment is let through; so the API server knows.
        let binding = serde_json::json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": "probe", "namespace": lab.namespace, "labels": {"contour.slipway.dev/contourdeployment": "probe"}},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        });
        wait("the policies are not in force any more", PATIENT)
            .until(async || {
                let made = lab.create(&binding).await;
                Ok(made.map_or_else(|error| Look::NotYet(format!("{error:#}")), |_| Look::Reached(())))
            })
            .await?;
        lab.delete(&Thing::new("RoleBinding", &lab.namespace, "probe")).await?;
        play::play(lab, false).await
    })
    .await;
}
