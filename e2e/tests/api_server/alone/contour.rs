//! The real Contour as a process, with the admission policies in force. Contour writes its verdicts to objects with and without
//! Slipway's marks. Contour judges every ExtensionService of the cluster, which would disturb tests that simulate Contour.

use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use slipway_e2e::cluster;
use slipway_e2e::lab::created::{name, settled_edge};
use slipway_e2e::lab::operator::free_address;
use slipway_e2e::lab::players::{Kubelet, auth_server, extension_service};
use slipway_e2e::lab::world::{Takes, alone};
use slipway_e2e::lab::{Lab, PATIENT, Thing, wait};
use slipway_e2e::wait::Look;

/// A Contour process that ends when this value is dropped.
struct Contour(Child);

impl Contour {
    /// Starts Contour with the rights and the Lease that Slipway gives to the Contour of `edge` in the test's namespace.
    async fn start(lab: &Lab) -> anyhow::Result<Self> {
        let binary = cluster::testbed(&["path", "contour"]).await?;
        let kubeconfig = lab.world.kubeconfig_of(&lab.namespace, "edge-contour").await?;
        let log = std::fs::File::create(lab.world.files.join("contour.log")).context("creating Contour's log")?;
        let mut contour = Command::new(binary.trim());
        contour
            .args(["serve", "--insecure", "--leader-election-resource-name=edge-contour"])
            .arg(format!("--leader-election-resource-namespace={}", lab.namespace))
            .arg("--kubeconfig")
            .arg(&kubeconfig)
            // Contour must not read the machine's own configuration.
            .env_remove("KUBECONFIG")
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("duplicating the log's file handle")?)
            .stderr(log);
        for listener in ["xds", "http", "health", "debug-http"] {
            let address = free_address()?;
            contour
                .arg(format!("--{listener}-address={}", address.ip()))
                .arg(format!("--{listener}-port={}", address.port()));
        }
        contour.spawn().map(Self).context("starting Contour")
    }
}

impl Drop for Contour {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns Contour's verdict on the object's current generation. Returns None without a verdict on that generation.
fn verdict(object: &Value) -> Option<&Value> {
    let conditions = object["status"]["conditions"].as_array()?;
    let valid = conditions.iter().find(|condition| condition["type"] == "Valid")?;
    (valid["observedGeneration"] == object["metadata"]["generation"]).then(|| &valid["status"])
}

#[tokio::test]
async fn contour_judges_services_and_stand_ins_and_leads() {
    alone("verdicts", Takes::Operator, async |lab: &Lab| {
        let _kubelet = Kubelet::of(&lab.client, &lab.namespace);
        let auth = lab.name("auth");
        let edge = settled_edge(lab, &auth).await?;
        auth_server(lab, &auth).await?;
        lab.create(&extension_service(&auth, "500ms")).await?;
        let _contour = Contour::start(lab).await?;
        // Contour writes a verdict to the user's object, the operator copies the object, and Contour judges the copy.
        lab.status(&edge, "the service is enforced", PATIENT, |status| {
            status
                .extension_services
                .iter()
                .all(|service| service.traffic == "Enforced")
        })
        .await?;
        wait("Contour has judged every stand-in as valid", PATIENT)
            .until(async || {
                let all = lab.all("ExtensionService", &auth, &edge).await?;
                let judged = all
                    .iter()
                    .filter(|it| verdict(it).is_some_and(|status| status == "True"));
                Ok(Look::when(
                    !all.is_empty() && judged.count() == all.len(),
                    format!(
                        "{:?}",
                        all.iter()
                            .map(|it| (name(it).unwrap_or_default(), &it["status"]))
                            .collect::<Vec<_>>()
                    ),
                ))
            })
            .await?;
        let lease = lab.read(&Thing::new("Lease", &lab.namespace, "edge-contour")).await?;
        ensure!(
            lease["spec"]["holderIdentity"].is_string(),
            "the Lease has no holder: {lease}"
        );
        Ok(())
    })
    .await;
}
