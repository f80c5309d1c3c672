//! What is special in time about a deletion; that nothing is left by any other is in `drift`.

use kube::api::DeleteParams;
use slipway_e2e::edge::Edge;
use slipway_e2e::wait::Look;

use slipway_e2e::lab::world::beside_others;
use slipway_e2e::lab::{Lab, PATIENT, Thing, specification, wait};

#[tokio::test]
async fn nothing_is_left_of_one_that_is_deleted_before_anything_has_started() {
    beside_others("early", async |lab: &Lab| {
        let auth = lab.name("auth");
        lab.make_namespace(&auth).await?;
        let edge = lab.edge(&specification(&auth)).await?;
        edge.delete().await?;
        lab.nothing_is_left(&edge).await
    })
    .await;
}

#[tokio::test]
async fn a_successor_of_the_same_name_gets_objects_of_its_own() {
    beside_others("again", async |lab: &Lab| {
        let auth = lab.name("auth");
        lab.make_namespace(&auth).await?;
        for _ in 0..2 {
            let edge = lab.edge(&specification(&auth)).await?;
            let owner = lab
                .read(&Thing::new("ContourDeployment", &lab.namespace, "edge"))
                .await?["metadata"]["uid"]
                .clone();
            let deployment = Thing::new("Deployment", &lab.namespace, "edge-contour");
            wait("its own Contour is made", PATIENT)
                .until(async || {
                    let found = lab.find(&deployment).await?.unwrap_or_default();
                    let its = found["metadata"]["ownerReferences"][0]["uid"].clone();
                    Ok(Look::when(
                        its == owner,
                        format!("it belongs to {its}; {}", edge.status().await?),
                    ))
                })
                .await?;
            let api = lab.api("ContourDeployment", &lab.namespace);
            api.delete("edge", &DeleteParams::foreground()).await?;
            wait("the ContourDeployment is gone", PATIENT)
                .until(async || Ok(Look::when(api.get_opt("edge").await?.is_none(), "it is still there")))
                .await?;
        }
        lab.nothing_is_left(&Edge::new(lab.client.clone(), &lab.namespace, "edge"))
            .await
    })
    .await;
}
