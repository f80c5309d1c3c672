//! Volumes that a user mounts into a container of Slipway's. A mount must not hide the files that the container runs on.

use serde_json::Value;

/// Directories with the programs of the images and with the identity of the pod. `/run` is where `/var/run` leads to.
const SYSTEM: [&str; 11] = [
    "/bin",
    "/dev",
    "/lib",
    "/lib64",
    "/proc",
    "/run/secrets",
    "/sbin",
    "/sys",
    "/usr",
    "/var/run/secrets",
    "/etc/ld.so.preload",
];

/// Returns the reason why this mount must not be added to a container with these mounts, or None.
pub fn refused(added: &Value, own: &[Value]) -> Option<String> {
    let path = normalized(mount_path(added));
    let own = own.iter().map(mount_path);
    let mut reserved = own.chain(SYSTEM);
    let hidden = reserved.find(|reserved| is_within(&path, reserved) || is_within(reserved, &path))?;
    Some(format!(
        "the container needs its own files in {hidden}; mount the volume elsewhere"
    ))
}

fn mount_path(mount: &Value) -> &str {
    mount["mountPath"].as_str().unwrap_or_default()
}

/// Reports whether a path is a directory or below it.
fn is_within(path: &str, directory: &str) -> bool {
    let rest = path.strip_prefix(directory.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Returns a path without `.`, `..` and repeated slashes. A relative path starts at the root, as in the container runtime.
fn normalized(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_mount_must_not_hide_the_containers_own_files() {
        let own = [json!({"mountPath": "/certs"}), json!({"mountPath": "/config"})];
        let is_refused = |path: &str| refused(&json!({"mountPath": path}), &own).is_some();
        for path in [
            "/certs",
            "/certs/",
            "//certs",
            "/certs/tls.crt",
            "/x/../certs",
            "certs",
            "/",
            "",
            "/.",
            "/usr/local/bin",
            "/usr",
            "/var/run/secrets/kubernetes.io/serviceaccount",
            "/var",
            "/run",
            "/proc/1",
            "/etc",
            "/config/./x",
        ] {
            assert!(is_refused(path), "{path}");
        }
        for path in [
            "/certs2",
            "/data",
            "/etc/ssl/certs",
            "/var/log",
            "/opt/envoy",
            "/home",
            "/tmp",
        ] {
            assert!(!is_refused(path), "{path}");
        }
    }
}
