//! Names of the objects that Slipway makes, and the hash that is part of some of them.

use sha2::{Digest, Sha256};

use crate::api::Role;
use crate::plan::object::Owner;

/// What the names of trials have where those of stand-ins have the slug of their role.
const TRIAL: &str = "trial";

/// How many characters a hash in a name has.
const HASH_LENGTH: usize = 10;

/// The greatest number that is counted up in names (`salt`). It comes back from annotations, which others may have written.
pub const GREATEST_SALT: u32 = 1_000_000;

/// The salts that may follow this one, each once: those after it, then the ones before it.
pub fn salts_from(salt: u32) -> impl Iterator<Item = u32> {
    let salt = salt.min(GREATEST_SALT);
    (salt..=GREATEST_SALT).chain(0..salt)
}

/// 10 base32 characters (50 bits) of SHA-256 over a length-prefixed encoding of the parts, so that no two different lists of
/// parts are the same bytes.
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

/// Hash of a JSON value. `serde_json` keeps maps classified, so that equal values have equal text.
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
        format!("{}-{TRIAL}-{hash}", self.name)
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

    /// Whether a name is of the form that stand-ins, blackholes and trials of this owner's have.
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

    /// A stand-in, and its blackhole.
    pub fn stand_in(&self, role: Role, hash: &str) -> String {
        format!("{}-{}-{hash}", self.name, role.slug())
    }
}

#[cfg(test)]
mod tests {
    use super::{GREATEST_SALT, Owner, hash, salts_from};
    use crate::api::Role;

    #[test]
    fn the_names_of_stand_ins_are_told_from_all_others() {
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
    fn salts_have_an_end_and_begin_anew_after_it() {
        assert_eq!(salts_from(3).take(2).collect::<Vec<_>>(), [3, 4]);
        assert_eq!(
            salts_from(GREATEST_SALT).take(2).collect::<Vec<_>>(),
            [GREATEST_SALT, 0]
        );
        assert_eq!(salts_from(u32::MAX).next(), Some(GREATEST_SALT));
    }

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
