//! What ExtensionServices are referenced for. Everything that differs from role to role stands in one table, [`Row`].

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::spec::RuntimeSettings;
use super::status::Traffic;

/// What an ExtensionService is referenced for.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// `runtimeSettings.globalExtAuth`
    GlobalExternalAuthorization,
    /// `runtimeSettings.rateLimitService`
    RateLimit,
    /// `runtimeSettings.tracing`
    Tracing,
}

/// All that there is to know of a role.
struct Row {
    /// The short form that names are made of.
    slug: &'static str,
    /// The field of the settings, and of a ContourConfiguration's spec.
    field: &'static str,
    /// The field in that which references the ExtensionService.
    reference: &'static str,
    /// What the settings say.
    specified: fn(&RuntimeSettings) -> Option<Specified>,
    /// What happens to requests while nobody can be asked, if `failOpen` is false, and if it is true; without `failOpen`, both are the
    /// same.
    unanswered: [Traffic; 2],
    /// What happens to them where the field is not set.
    unset: Traffic,
    /// What that means, in words.
    words: fn(Traffic) -> &'static str,
}

/// What the settings say of a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Specified {
    /// The namespace of the ExtensionService.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `failOpen` as specified; none for tracing.
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
    /// Every role.
    pub const ALL: [Self; 3] = [Self::GlobalExternalAuthorization, Self::RateLimit, Self::Tracing];

    fn row(self) -> &'static Row {
        match self {
            Self::GlobalExternalAuthorization => &EXTERNAL_AUTHORIZATION,
            Self::RateLimit => &RATE_LIMIT,
            Self::Tracing => &TRACING,
        }
    }

    /// The short form that names are made of.
    pub fn slug(self) -> &'static str {
        self.row().slug
    }

    /// The role with this slug.
    pub fn from_slug(slug: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.slug() == slug)
    }

    /// The field of the settings, and of a ContourConfiguration's spec, that is about it.
    pub fn field(self) -> &'static str {
        self.row().field
    }

    /// The field in that which references the ExtensionService.
    pub fn reference_field(self) -> &'static str {
        self.row().reference
    }

    /// What the settings say of it, if they do.
    pub fn specified(self, settings: &RuntimeSettings) -> Option<Specified> {
        (self.row().specified)(settings)
    }

    /// Namespace and name of the ExtensionService that the spec of a ContourConfiguration references for it, if it does.
    pub fn referenced(self, spec: &Map<String, Value>) -> Option<(String, String)> {
        let reference = spec.get(self.field())?.get(self.reference_field())?;
        let text = |key: &str| Some(reference.get(key)?.as_str()?.to_owned());
        Some((text("namespace")?, text("name")?))
    }

    /// Makes the spec of a ContourConfiguration reference this ExtensionService for it, if it references one.
    pub fn refer(self, spec: &mut Map<String, Value>, namespace: &str, name: &str) {
        if let Some(Value::Object(block)) = spec.get_mut(self.field()) {
            let reference = serde_json::json!({"namespace": namespace, "name": name});
            block.insert(self.reference_field().to_owned(), reference);
        }
    }

    /// What happens to requests while nobody can be asked.
    pub fn unanswered(self, fail_open: bool) -> Traffic {
        self.row().unanswered[usize::from(fail_open)]
    }

    /// What happens to them where it is not configured.
    pub fn unset(self) -> Traffic {
        self.row().unset
    }

    /// What it means, in words, that requests are treated so; for what is not enforced.
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
    fn a_role_is_called_the_same_everywhere() {
        for role in Role::ALL {
            assert_eq!(serde_json::to_value(role).expect("a word"), role.to_string());
            assert_eq!(Role::from_slug(role.slug()), Some(role));
        }
    }

    #[test]
    fn what_a_configuration_is_made_to_reference_is_what_it_is_found_to_reference() {
        for role in Role::ALL {
            let mut spec = Map::new();
            role.refer(&mut spec, "auth", "edge");
            assert_eq!(role.referenced(&spec), None, "{role} is not configured");
            spec.insert(role.field().to_owned(), Value::Object(Map::new()));
            role.refer(&mut spec, "auth", "edge");
            assert_eq!(role.referenced(&spec), Some(("auth".to_owned(), "edge".to_owned())));
            if let Some(Value::Object(block)) = spec.get_mut(role.field()) {
                // Contour's rate limits are of a domain.
                block.insert("domain".to_owned(), "edge".into());
            }
            let settings: RuntimeSettings = serde_json::from_value(Value::Object(spec)).expect("settings");
            let specified = role.specified(&settings).expect("it is specified");
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
