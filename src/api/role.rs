//! Roles: the purposes for which a ContourDeployment references an ExtensionService. One table, [`Row`], holds all properties that differ
//! between roles.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::spec::RuntimeSettings;
use super::status::Traffic;

/// Defines the roles, with the list of them and the row of each. A role that is in one of the three is in all of them.
macro_rules! roles {
    ($($(#[$doc:meta])* $role:ident => $row:ident;)*) => {
        /// The purpose of a reference to an ExtensionService.
        #[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Role {
            $($(#[$doc])* $role,)*
        }

        impl Role {
            /// Every role.
            pub const ALL: [Self; [$(stringify!($role)),*].len()] = [$(Self::$role),*];

            fn row(self) -> &'static Row {
                match self {
                    $(Self::$role => &$row,)*
                }
            }
        }
    };
}

roles! {
    /// External authorization: `runtimeSettings.globalExtAuth`.
    GlobalExternalAuthorization => EXTERNAL_AUTHORIZATION;
    /// Rate limiting: `runtimeSettings.rateLimitService`.
    RateLimit => RATE_LIMIT;
    /// Tracing: `runtimeSettings.tracing`.
    Tracing => TRACING;
}

/// The properties of a role.
struct Row {
    /// The short form, which names of objects contain.
    slug: &'static str,
    /// The field of the settings and of a ContourConfiguration's spec.
    field: &'static str,
    /// The field within `field` that references the ExtensionService.
    reference: &'static str,
    /// Reads the role's part of the settings.
    specified: fn(&RuntimeSettings) -> Option<Specified>,
    /// The effect on requests while the service is unavailable: first with `failOpen: false`, then with `failOpen: true`. Both are equal
    /// for a role without `failOpen`.
    unanswered: [Traffic; 2],
    /// The effect on requests if the field is not set.
    unset: Traffic,
    /// Describes the effect in words.
    words: fn(Traffic) -> &'static str,
}

/// A role's part of the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Specified {
    /// The namespace of the ExtensionService.
    pub namespace: String,
    /// The name of the ExtensionService.
    pub name: String,
    /// The value of `failOpen`. None for tracing.
    pub fail_open: Option<bool>,
}

const EXTERNAL_AUTHORIZATION: Row = Row {
    slug: "ext-auth",
    field: "globalExtAuth",
    reference: "extensionRef",
    specified: |settings| {
        let block = settings.global_ext_auth.as_ref()?;
        Some(Specified {
            namespace: block.extension_ref.namespace.clone(),
            name: block.extension_ref.name.clone(),
            fail_open: Some(block.fail_open),
        })
    },
    unanswered: [Traffic::Denied, Traffic::AllowedUnchecked],
    unset: Traffic::AllowedUnchecked,
    words: |traffic| match traffic {
        Traffic::Denied => "every request that needs authorization is denied",
        _ => "requests pass without authorization",
    },
};

const RATE_LIMIT: Row = Row {
    slug: "rate-limit",
    field: "rateLimitService",
    reference: "extensionService",
    specified: |settings| {
        let block = settings.rate_limit_service.as_ref()?;
        Some(Specified {
            namespace: block.extension_service.namespace.clone(),
            name: block.extension_service.name.clone(),
            fail_open: Some(block.fail_open),
        })
    },
    unanswered: [Traffic::Denied, Traffic::AllowedUnchecked],
    unset: Traffic::AllowedUnchecked,
    words: |traffic| match traffic {
        Traffic::Denied => "rate-limited requests are denied",
        _ => "requests pass without rate limits",
    },
};

const TRACING: Row = Row {
    slug: "tracing",
    field: "tracing",
    reference: "extensionService",
    specified: |settings| {
        let block = settings.tracing.as_ref()?;
        Some(Specified {
            namespace: block.extension_service.namespace.clone(),
            name: block.extension_service.name.clone(),
            fail_open: None,
        })
    },
    unanswered: [Traffic::NotSampled; 2],
    unset: Traffic::NotSampled,
    words: |_| "requests are not traced",
};

impl Role {
    /// Returns the short form, which names of objects contain.
    pub fn slug(self) -> &'static str {
        self.row().slug
    }

    /// Returns the role with this slug, or None if no role has it.
    pub fn from_slug(slug: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.slug() == slug)
    }

    /// Returns the field of the settings, and of a ContourConfiguration's spec, that configures the role.
    pub fn field(self) -> &'static str {
        self.row().field
    }

    /// Returns the field within [`Self::field`] that references the ExtensionService.
    pub fn reference_field(self) -> &'static str {
        self.row().reference
    }

    /// Returns the role's part of the settings, or None if the settings do not configure the role.
    pub fn specified(self, settings: &RuntimeSettings) -> Option<Specified> {
        (self.row().specified)(settings)
    }

    /// Returns the namespace and the name of the ExtensionService that the spec of a ContourConfiguration references for the role. Returns
    /// None if the spec has no such reference.
    pub fn referenced(self, spec: &Map<String, Value>) -> Option<(String, String)> {
        let reference = spec.get(self.field())?.get(self.reference_field())?;
        let text = |key: &str| Some(reference.get(key)?.as_str()?.to_owned());
        Some((text("namespace")?, text("name")?))
    }

    /// Sets the role's reference in the spec of a ContourConfiguration. Does nothing if the spec does not configure the role.
    pub fn refer(self, spec: &mut Map<String, Value>, namespace: &str, name: &str) {
        if let Some(Value::Object(block)) = spec.get_mut(self.field()) {
            let reference = serde_json::json!({"namespace": namespace, "name": name});
            block.insert(self.reference_field().to_owned(), reference);
        }
    }

    /// Returns the effect on requests while the service is unavailable.
    pub fn unanswered(self, fail_open: bool) -> Traffic {
        self.row().unanswered[usize::from(fail_open)]
    }

    /// Returns the effect on requests if the role is not configured.
    pub fn unset(self) -> Traffic {
        self.row().unset
    }

    /// Describes an effect on requests in words. Callers do not pass [`Traffic::Enforced`].
    pub fn words(self, traffic: Traffic) -> &'static str {
        (self.row().words)(traffic)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn role_has_the_same_name_everywhere() {
        for role in Role::ALL {
            assert_eq!(
                serde_json::to_value(role).expect("a role is a string"),
                role.to_string()
            );
            assert_eq!(Role::from_slug(role.slug()), Some(role));
        }
    }

    #[test]
    fn referenced_returns_the_reference_that_refer_sets() {
        for role in Role::ALL {
            let mut spec = Map::new();
            role.refer(&mut spec, "auth", "edge");
            assert_eq!(role.referenced(&spec), None, "{role} is not configured");
            spec.insert(role.field().to_owned(), Value::Object(Map::new()));
            role.refer(&mut spec, "auth", "edge");
            assert_eq!(role.referenced(&spec), Some(("auth".to_owned(), "edge".to_owned())));
            if let Some(Value::Object(block)) = spec.get_mut(role.field()) {
                // Rate limits require a domain.
                block.insert("domain".to_owned(), "edge".into());
            }
            let settings: RuntimeSettings = serde_json::from_value(Value::Object(spec)).expect("settings");
            let specified = role.specified(&settings).expect("the settings configure the role");
            assert_eq!(
                (specified.namespace.as_str(), specified.name.as_str()),
                ("auth", "edge")
            );
            assert_eq!(
                Role::ALL
                    .into_iter()
                    .filter(|other| other.specified(&settings).is_some())
                    .count(),
                1
            );
        }
    }
}
