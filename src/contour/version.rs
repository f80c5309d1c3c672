//! The minor versions of Contour that Slipway supports, and the facts about each of them.
//!
//! To add a minor version, add its [`Facts`] and a line to `versions!`. The checks of settings in `preflight` and the default ports in
//! `ports` also depend on the version.

use std::fmt;

use super::ports::Ports;

/// Defines the versions, with the list of them and the facts about each. A version that is in one of the three is in all of them.
macro_rules! versions {
    ($($(#[$doc:meta])* $version:ident => $facts:ident;)*) => {
        /// A supported minor version of Contour.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Version {
            $($(#[$doc])* $version,)*
        }

        impl Version {
            /// All supported versions, the default version first.
            pub const ALL: [Self; [$(stringify!($version)),*].len()] = [$(Self::$version),*];

            /// Returns the facts about this version.
            pub fn facts(self) -> &'static Facts {
                match self {
                    $(Self::$version => &$facts,)*
                }
            }
        }
    };
}

versions! {
    /// Contour 1.33.
    V1_33 => V1_33;
}

/// The facts about a minor version of Contour.
#[derive(Debug, PartialEq, Eq)]
pub struct Facts {
    /// The name of the minor version, for example `1.33`.
    pub name: &'static str,
    /// The default image of Contour.
    pub contour_image: &'static str,
    /// The default image of Envoy: the image that the same release of Contour is tested with.
    pub envoy_image: &'static str,
    /// The reason of a verdict on an ExtensionService whose Service, or whose Service port, Contour does not find.
    pub unresolved_reason: &'static str,
    /// The reasons of verdicts on the objects that an ExtensionService references. Other reasons concern the configuration of the Contour
    /// that writes the verdict, and are the same for every ExtensionService.
    pub target_reasons: &'static [&'static str],
    /// The default ports.
    pub ports: Ports,
    /// The TLS cipher suites that Contour accepts.
    pub ciphers: &'static [&'static str],
    /// The flags of Envoy that a user may add, with their values.
    pub envoy_flags: &'static [(&'static str, FlagValue)],
}

/// The value of a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagValue {
    /// The flag has no value.
    None,
    /// A number from 0 to this one.
    Number(u32),
    /// Any text that is not empty.
    Text,
    /// One of these texts.
    OneOf(&'static [&'static str]),
}

/// Contour 1.33, with the files of v1.33.8.
static V1_33: Facts = Facts {
    name: "1.33",
    contour_image: "ghcr.io/projectcontour/contour:v1.33.8",
    // examples/contour/03-envoy.yaml
    envoy_image: "docker.io/envoyproxy/envoy:distroless-v1.38.9",
    // internal/dag/extension_processor.go
    unresolved_reason: "ServiceUnresolvedReference",
    target_reasons: &[
        "ServiceUnresolvedReference",
        "UnsupportedServiceType",
        "TLSUpstreamValidation",
        "CACertificateNotDelegated",
    ],
    // internal/contourconfig/contourconfiguration.go
    ports: Ports {
        contour_health: 8000,
        contour_metrics: 8000,
        contour_debug: 6060,
        envoy_http: 8080,
        envoy_https: 8443,
        envoy_metrics: 8002,
        envoy_health: 8002,
    },
    // apis/projectcontour/v1alpha1/ciphersuites.go, ValidTLSCiphers
    ciphers: &[
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-CHACHA20-POLY1305",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES128-SHA",
        "ECDHE-RSA-AES128-SHA",
        "AES128-GCM-SHA256",
        "AES128-SHA",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-AES256-SHA",
        "ECDHE-RSA-AES256-SHA",
        "AES256-GCM-SHA384",
        "AES256-SHA",
    ],
    // Envoy 1.38.3, source/server/options_impl.cc. Left out: flags that Slipway or a typed field sets; flags that change which configuration
    // Envoy accepts (--disable-extensions, --reject-unknown-dynamic-fields); flags whose values depend on the build (--component-log-level);
    // flags without a use in a container (hot restart, core dumps, admin address, log path). A number of worker threads that exceeds the
    // file descriptors of the process ends Envoy.
    envoy_flags: &[
        ("--concurrency", FlagValue::Number(1024)),
        ("--cpuset-threads", FlagValue::None),
        ("--drain-strategy", FlagValue::OneOf(&["gradual", "immediate"])),
        ("--drain-time-s", FlagValue::Number(u32::MAX)),
        ("--file-flush-interval-msec", FlagValue::Number(u32::MAX)),
        ("--file-flush-min-size-kb", FlagValue::Number(u32::MAX)),
        ("--local-address-ip-version", FlagValue::OneOf(&["v4", "v6"])),
        ("--log-format", FlagValue::Text),
        ("--log-format-escaped", FlagValue::None),
        ("--service-zone", FlagValue::Text),
        ("--skip-deprecated-logs", FlagValue::None),
    ],
};

/// The version of Contour in an image, according to the image reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageVersion {
    /// The tag names a supported version.
    Supported(Version),
    /// The tag names another version, for example `1.32`.
    Unsupported(String),
    /// The reference has no tag, or its tag names no version.
    Unknown,
}

impl Version {
    /// The version that applies if the version of the image is unknown or unsupported.
    pub const DEFAULT: Self = Self::ALL[0];

    /// Returns the version whose rules apply to an image. The rules of the default version apply to an image of an unknown or unsupported
    /// version, and status reports this.
    pub fn for_image(image: Option<&str>) -> Self {
        match ImageVersion::of(image) {
            ImageVersion::Supported(version) => version,
            ImageVersion::Unsupported(_) | ImageVersion::Unknown => Self::DEFAULT,
        }
    }
}

impl ImageVersion {
    /// Parses the version from the tag of an image reference, for example `registry:5000/contour:v1.33.8@sha256:…`. None stands for the
    /// default image.
    pub fn of(image: Option<&str>) -> Self {
        let Some(image) = image else {
            return Self::Supported(Version::DEFAULT);
        };
        let without_digest = image.split_once('@').map_or(image, |(reference, _)| reference);
        let last = without_digest.rsplit('/').next().unwrap_or_default();
        let Some((major, minor)) = last.split_once(':').and_then(|(_, tag)| minor_version(tag)) else {
            return Self::Unknown;
        };
        let name = format!("{major}.{minor}");
        let known = Version::ALL.into_iter().find(|version| version.facts().name == name);
        known.map_or(Self::Unsupported(name), Self::Supported)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.facts().name)
    }
}

/// Returns the first two numbers of a tag such as `v1.33.8`, `1.33` or `v1.33.8-rc.1`, or None if the tag has no such numbers.
fn minor_version(tag: &str) -> Option<(u32, u32)> {
    let mut numbers = tag.strip_prefix('v').unwrap_or(tag).splitn(3, '.');
    let major = numbers.next()?.parse().ok()?;
    let minor = numbers.next()?;
    let digits = minor.find(|character: char| !character.is_ascii_digit());
    let minor = digits.map_or(minor, |end| &minor[..end]).parse().ok()?;
    Some((major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_version_comes_from_the_tag() {
        use ImageVersion::{Supported, Unknown, Unsupported};
        let v1_33 = || Supported(Version::V1_33);
        for (image, expected) in [
            ("ghcr.io/projectcontour/contour:v1.33.8", v1_33()),
            ("contour:1.33", v1_33()),
            ("registry:5000/mirror/contour:v1.33.8-distroless@sha256:00", v1_33()),
            ("contour:1.33-rc.1", v1_33()),
            ("contour:v1.32.4", Unsupported("1.32".to_owned())),
            ("contour:v2.0.0", Unsupported("2.0".to_owned())),
            ("contour:v1.330.0", Unsupported("1.330".to_owned())),
            ("registry:5000/contour", Unknown),
            ("registry.v1.33.8/contour", Unknown),
            ("contour:main", Unknown),
            ("contour:v1", Unknown),
            ("contour@sha256:00", Unknown),
            ("", Unknown),
        ] {
            assert_eq!(ImageVersion::of(Some(image)), expected, "{image}");
        }
        assert_eq!(ImageVersion::of(None), v1_33());
    }

    #[test]
    fn the_default_image_of_each_version_names_that_version() {
        for version in Version::ALL {
            let facts = version.facts();
            assert_eq!(
                ImageVersion::of(Some(facts.contour_image)),
                ImageVersion::Supported(version)
            );
            assert!(facts.target_reasons.contains(&facts.unresolved_reason));
            assert_eq!(version.to_string(), facts.name);
        }
    }
}
