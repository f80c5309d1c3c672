//! Names of the objects that Slipway makes, and the hash that is part of some of them.

use sha2::{Digest, Sha256};

use crate::api::Role;
use crate::plan::object::Owner;

/// 10 base32 characters (50 bits) of SHA-256 over a length-prefixed encoding of the parts, so that no two different lists of
/// parts are the same bytes.
pub fn hash<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part.as_bytes());
    }
    let mut text = data_encoding::BASE32_DNSSEC.encode(&digest.finalize());
    text.truncate(10);
    text
}

/// Hash of a JSON value. `serde_json` keeps maps sorted, so that equal values have equal text.
pub fn hash_json(value: &impl serde::Serialize) -> String {
    hash([serde_json::to_string(value).expect("JSON has a text").as_str()])
}

impl Owner {
    /// Contour's Deployment, its Service, ServiceAccount, Lease.
    pub fn contour(&self) -> String {
        format!("{}-contour", self.name)
    }

    /// Envoy's workload, its Service, ServiceAccount.
    pub fn envoy(&self) -> String {
        format!("{}-envoy", self.name)
    }

    /// The Secret with the authority that signs both certificates.
    pub fn authority_secret(&self) -> String {
        format!("{}-xds-ca", self.name)
    }

    /// The Secret with Contour's certificate.
    pub fn contour_secret(&self) -> String {
        format!("{}-contour-cert", self.name)
    }

    /// The Secret with Envoy's certificate.
    pub fn envoy_secret(&self) -> String {
        format!("{}-envoy-cert", self.name)
    }

    /// The trial of this generation of the ExtensionService with this uid.
    pub fn trial(&self, uid: &str, generation: i64) -> String {
        let generation = generation.to_string();
        let hash = hash([self.namespace.as_str(), &self.name, uid, &generation]);
        format!("{}-trial-{hash}", self.name)
    }

    /// What lets Contour read the cluster. A colon can't be part of a namespace's or a ContourDeployment's name, so that no
    /// two of them share this name.
    pub fn contour_cluster_binding(&self) -> String {
        format!("slipway:{}:{}:contour", self.namespace, self.name)
    }

    /// One of the operator's own bindings in this namespace, to the ClusterRole of this name.
    pub fn operator_binding(&self, cluster_role: &str) -> String {
        format!("{}-{cluster_role}", self.name)
    }

    /// A ContourConfiguration.
    pub fn configuration(&self, hash: &str) -> String {
        format!("{}-{hash}", self.name)
    }

    /// A stand-in, and its blackhole.
    pub fn stand_in(&self, role: Role, hash: &str) -> String {
        format!("{}-{}-{hash}", self.name, role.slug())
    }
}

#[cfg(test)]
mod tests {
    use super::hash;

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(hash(["ab", "c"]), hash(["a", "bc"]));
        assert_ne!(hash(["a", ""]), hash(["a"]));
    }

    #[test]
    fn a_hash_is_ten_characters_of_a_dns_label() {
        let hash = hash(["edge"]);
        assert_eq!(hash.len(), 10);
        assert!(
            hash.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()),
            "{hash}"
        );
    }
}
