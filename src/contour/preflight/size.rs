//! Checks the size of the settings. Contour's pod template carries the startup inputs of a container as an annotation, and the settings
//! are part of them. The API server refuses an object with more than 256 KiB of annotations (`TotalAnnotationSizeLimitB`, apimachinery
//! v0.34, `pkg/api/validation/objectmeta.go`).

use serde_json::Value;

use super::Check;

/// Maximum size of the keys and values of all annotations of an object, in bytes.
const ANNOTATIONS: usize = 256 * 1024;

/// Bytes reserved for the startup inputs other than the settings (some names and hashes), and for annotations of other controllers on
/// pods, for example of a network plugin or a service mesh.
const RESERVED: usize = 16 * 1024;

/// Maximum size of the settings as JSON, in bytes.
pub const LIMIT: usize = ANNOTATIONS - RESERVED;

/// The only default of the CRD that the API server adds to each item of a list.
const DEFAULT_OF_AN_ENTRY: &str = r#","expectMatch":true"#;

pub fn check(check: &mut Check) {
    let size = check.settings.to_string().len() + defaults(check);
    if size > LIMIT {
        check.problems.push(format!(
            "spec.runtimeSettings: as JSON it has {size} bytes, and the limit is {LIMIT}: Slipway writes it to an annotation of \
             Contour's pods, and Kubernetes allows {ANNOTATIONS} bytes of annotations on an object; shorten its longest texts and \
             lists"
        ));
    }
}

/// Returns the size of the defaults that the API server adds, in bytes.
fn defaults(check: &Check) -> usize {
    let entries = check
        .items("rateLimitService.defaultGlobalRateLimitPolicy.descriptors")
        .filter_map(|descriptor| descriptor.get("entries").and_then(Value::as_array))
        .flatten();
    let lacks_it = |entry: &&Value| {
        let matches = entry.get("requestHeaderValueMatch").and_then(Value::as_object);
        matches.is_some_and(|fields| !fields.contains_key("expectMatch"))
    };
    entries.filter(lacks_it).count() * DEFAULT_OF_AN_ENTRY.len()
}
