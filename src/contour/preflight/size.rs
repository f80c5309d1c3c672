//! Whether the settings fit where they are written. What a container captures stands on Contour's pod template as an annotation,
//! and the API server refuses an object with more than 256 KiB of annotations (`TotalAnnotationSizeLimitB`, apimachinery v0.34,
//! `pkg/api/validation/objectmeta.go`).

use serde_json::Value;

use super::Check;

/// Bytes that the keys and values of all annotations of an object may have.
const ANNOTATIONS: usize = 256 * 1024;

/// Left for what is captured beside the settings (some names and hashes), and for annotations of others on pods: a network's,
/// a mesh's.
const RESERVED: usize = 16 * 1024;

/// Bytes that the settings may have as JSON.
pub const LIMIT: usize = ANNOTATIONS - RESERVED;

/// The only default of the CRD that is filled in once for each item of a list.
const DEFAULT_OF_AN_ENTRY: &str = r#","expectMatch":true"#;

pub fn check(check: &mut Check) {
    let size = check.settings.to_string().len() + defaults(check);
    if size > LIMIT {
        check.problems.push(format!(
            "spec.runtimeSettings: as JSON it has {size} bytes, and may have {LIMIT}: it is written on Contour's pods as an \
             annotation, and Kubernetes allows {ANNOTATIONS} bytes of annotations on an object; shorten the longest texts and \
             lists in it"
        ));
    }
}

/// Bytes that the API server adds.
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
