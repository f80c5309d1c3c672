//! Names of the objects that Slipway creates, and the hash in some of these names.

use sha2::{Digest, Sha256};

use crate::api::Role;
use crate::plan::object::Owner;

/// The part of a trial's name that takes the place of the slug of a role in the name of a stand-in.
const TRIAL: &str = "trial";

/// The number of characters of a hash in a name.
const HASH_LENGTH: usize = 10;

/// The greatest `salt`, the number that is counted up in names. Slipway reads salts back from annotations, which others can write.
pub const GREATEST_SALT: u32 = 1_000_000;

/// Returns the salts to try after this one, each once: the salts from this one up to the greatest, then the smaller ones.
pub fn salts_from(salt: u32) -> impl Iterator<Item = u32> {
    let salt = salt.min(GREATEST_SALT);
    (salt..=GREATEST_SALT).chain(0..salt)
}

/// Returns 10 base32 characters (50 bits) of SHA-256 over a length-prefixed encoding of the parts. The encoding gives different lists of
/// parts different bytes.
pub fn hash<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part.as_bytes());
    }
    let mut text = data_encoding::BASE32_DNSSEC.encode(&digest.finalize());
    text.truncate(HASH_LENGTH);
    text
}

/// Returns the hash of a JSON value. `serde_json` keeps maps sorted, so equal values have equal text.
pub fn hash_json(value: &impl serde::Serialize) -> String {
    hash([serde_json::to_string(value).expect("serializable as JSON").as_str()])
}

impl Owner {
    /// Returns the name of Contour's Deployment, Service, ServiceAccount and Lease.
    pub fn contour(&self) -> String {
        format!("{}-contour", self.name)
    }

    /// Returns the name of Envoy's workload, Service and ServiceAccount.
    pub fn envoy(&self) -> String {
        format!("{}-envoy", self.name)
    }

    /// Returns the name of the Secret with the certificate authority that signs both certificates.
    pub fn authority_secret(&self) -> String {
        format!("{}-xds-ca", self.name)
    }

    /// Returns the name of the Secret with Contour's certificate.
    pub fn contour_secret(&self) -> String {
        format!("{}-contour-cert", self.name)
    }

    /// Returns the name of the Secret with Envoy's certificate.
    pub fn envoy_secret(&self) -> String {
        format!("{}-envoy-cert", self.name)
    }

    /// Returns the name of the trial for this generation of the ExtensionService with this uid.
    pub fn trial(&self, uid: &str, generation: i64) -> String {
        let generation = generation.to_string();
        let hash = hash([self.namespace.as_str(), &self.name, uid, &generation]);
        format!("{}-{TRIAL}-{hash}", self.name)
    }

    /// Returns the name of the ClusterRoleBinding that lets Contour read the cluster. The names of namespaces and ContourDeployments cannot
    /// contain a colon, so the name is unique for each ContourDeployment.
    pub fn contour_cluster_binding(&self) -> String {
        format!("slipway:{}:{}:contour", self.namespace, self.name)
    }

    /// Returns the name of the operator's own binding to the ClusterRole of this name.
    pub fn operator_binding(&self, cluster_role: &str) -> String {
        format!("{}-{cluster_role}", self.name)
    }

    /// Returns the name of a ContourConfiguration.
    pub fn configuration(&self, hash: &str) -> String {
        format!("{}-{hash}", self.name)
    }

    /// Reports whether a name has the form of the names of this owner's stand-ins, blackholes and trials.
    pub fn is_stand_in(&self, name: &str) -> bool {
        let is_hash = |text: &str| {
            text.len() == HASH_LENGTH && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'v'))
        };
        let slugs = Role::ALL.map(Role::slug).into_iter().chain([TRIAL]);
        let rest = name
            .strip_prefix(self.name.as_str())
            .and_then(|rest| rest.strip_prefix('-'));
        rest.and_then(|rest| rest.rsplit_once('-'))
            .is_some_and(|(slug, hash)| is_hash(hash) && slugs.into_iter().any(|known| known == slug))
    }

    /// Returns the name of a stand-in and its blackhole.
    pub fn stand_in(&self, role: Role, hash: &str) -> String {
        format!("{}-{}-{hash}", self.name, role.slug())
    }
}

#[cfg(test)]
mod tests {
    use super::{GREATEST_SALT, Owner, hash, salts_from};
    use crate::api::Role;

    #[test]
    fn stand_in_names_are_distinguished_from_all_other_names() {
        let owner = Owner {
            namespace: "projectcontour".to_owned(),
            name: "edge".to_owned(),
            uid: String::new(),
        };
        for role in Role::ALL {
            assert!(owner.is_stand_in(&owner.stand_in(role, &hash(["a"]))));
        }
        assert!(owner.is_stand_in(&owner.trial("a uid", 1)));
        for other in [
            "edge-ext-auth",
            "edge-ext-auth-",
            "edge-ext-auth-7rasmij3r",
            "edge-ext-auth-7rasmij3r66",
            "edge-ext-auth-7rasmij3rz",
            "edge-ext-auth-7rasmij3R6",
            "edge-ext-auth-BAD NAME",
            "edge-other-7rasmij3r6",
            "edge-7rasmij3r6",
            "ext-auth-7rasmij3r6",
            "edge2-ext-auth-7rasmij3r6",
            "",
        ] {
            assert!(!owner.is_stand_in(other), "{other:?}");
        }
    }

    #[test]
    fn salts_start_again_at_zero_after_the_greatest() {
        assert_eq!(salts_from(3).take(2).collect::<Vec<_>>(), [3, 4]);
        assert_eq!(
            salts_from(GREATEST_SALT).take(2).collect::<Vec<_>>(),
            [GREATEST_SALT, 0]
        );
        assert_eq!(salts_from(u32::MAX).next(), Some(GREATEST_SALT));
    }

    #[test]
    fn different_lists_of_parts_have_different_hashes() {
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
