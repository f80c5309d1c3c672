//! Checks the addresses and ports that Contour and Envoy listen on. If an address or a port is unusable, Contour exits, and Envoy refuses
//! the listener.

use std::net::IpAddr;

use serde_json::Value;

use super::Check;
use crate::contour::ports::{SHUTDOWN_MANAGER, XDS};

/// Checks each endpoint, and the endpoints of each container for conflicts.
pub fn check(check: &mut Check) {
    let contour = [
        Some(Endpoint::fixed("Contour's xDS server", "0.0.0.0", XDS)),
        Endpoint::read(check, "metrics", Default::At("0.0.0.0", 8000), Reach::Anywhere),
        Endpoint::read(check, "health", Default::At("0.0.0.0", 8000), Reach::Kubelet),
        Endpoint::read(check, "debug", Default::At("127.0.0.1", 6060), Reach::Anywhere),
    ];
    files(check, "metrics.tls", Without::Plain);
    conflicts(check, contour.into_iter().flatten().collect(), "metrics");

    let mut envoy = vec![
        Some(Endpoint::fixed("the shutdown manager", "0.0.0.0", SHUTDOWN_MANAGER)),
        Endpoint::read(check, "envoy.metrics", Default::At("0.0.0.0", 8002), Reach::Anywhere),
        Endpoint::read(check, "envoy.health", Default::At("0.0.0.0", 8002), Reach::Kubelet),
        Endpoint::read(check, "envoy.http", Default::At("0.0.0.0", 8080), Reach::Anywhere),
        Endpoint::read(check, "envoy.https", Default::At("0.0.0.0", 8443), Reach::Anywhere),
    ];
    if check.value("envoy.omEnforcedHealth").is_some() {
        envoy.push(Endpoint::read(
            check,
            "envoy.omEnforcedHealth",
            Default::None,
            Reach::Anywhere,
        ));
    }
    envoy.push(admin(check));
    files(check, "envoy.metrics.tls", Without::Refused);
    let listeners: Vec<_> = envoy.into_iter().flatten().collect();
    traffic_class(check, &listeners);
    conflicts(check, listeners, "envoy.metrics");
}

/// Returns Envoy's admin listener, or None if its port is invalid. A negative port turns the listener off
/// (`internal/xdscache/v3/listener.go`).
fn admin(check: &mut Check) -> Option<Endpoint> {
    let field = "envoy.network.adminPort";
    let chosen = check.value(field).and_then(Value::as_i64).filter(|port| *port != 0);
    let port = chosen.unwrap_or(9001);
    if port > i64::from(u16::MAX) {
        check.refuse(field, format_args!("{port} is not a port"));
    }
    let port = u16::try_from(port).ok()?;
    Some(Endpoint {
        port_field: Some(field.to_owned()),
        is_chosen: chosen.is_some(),
        ..Endpoint::fixed(field, "127.0.0.1", i32::from(port))
    })
}

/// An address and a port that a process listens on.
struct Endpoint {
    /// The path of a field below `runtimeSettings`, or a description of an endpoint that is not a setting.
    name: &'static str,
    /// The path of the field with the port. None for an endpoint that is not a setting.
    port_field: Option<String>,
    /// Whether the settings name the port.
    is_chosen: bool,
    address: String,
    port: i32,
}

/// Contour's default for an endpoint whose fields are not set.
#[derive(Clone, Copy)]
enum Default {
    At(&'static str, i32),
    None,
}

/// The clients that must be able to reach an endpoint.
#[derive(Clone, Copy, PartialEq)]
enum Reach {
    /// The kubelet, which sends probes from outside the pod.
    Kubelet,
    Anywhere,
}

impl Endpoint {
    fn fixed(name: &'static str, address: &str, port: i32) -> Self {
        Self {
            name,
            port_field: None,
            is_chosen: false,
            address: address.to_owned(),
            port,
        }
    }

    fn read(check: &mut Check, field: &'static str, default: Default, reach: Reach) -> Option<Self> {
        let (address_field, port_field) = (format!("{field}.address"), format!("{field}.port"));
        let (address, port) = match default {
            Default::At(address, port) => (Some(address), Some(port)),
            Default::None => (None, None),
        };
        // Contour applies its defaults over an empty address and over port 0.
        let address = check.nonempty_text(&address_field).or(address);
        let is_contours = !field.starts_with("envoy.");
        match address.map(|address| (address, address.parse::<IpAddr>())) {
            None => check.refuse(&address_field, "it must be set, for example to 0.0.0.0"),
            Some((_, Ok(ip))) if ip.is_unspecified() => {}
            Some((address, Ok(ip))) if !ip.is_loopback() => {
                check.refuse(
                    &address_field,
                    format_args!(
                        "{address} is not an address that every pod has; it must be 0.0.0.0, :: or a loopback address"
                    ),
                );
            }
            Some((address, Ok(_))) if reach == Reach::Kubelet => {
                check.refuse(
                    &address_field,
                    format_args!("the kubelet's probes can't reach {address}; it must be 0.0.0.0 or ::"),
                );
            }
            Some(("localhost", Err(_))) if is_contours && reach != Reach::Kubelet => {}
            Some((address, Err(_))) => check.refuse(&address_field, format_args!("{address:?} is not an IP address")),
            Some((_, Ok(_))) => {}
        }
        let number = match check.value(&port_field).map(|value| (value, value.as_i64())) {
            None | Some((_, Some(0))) => port.map(i64::from),
            Some((_, Some(number))) => Some(number),
            // The value is not a number, which the API server reports.
            Some((_, None)) => return None,
        };
        let Some(number) = number else {
            check.refuse(&port_field, "it must be set");
            return None;
        };
        let Some(port) = u16::try_from(number).ok().map(i32::from) else {
            check.refuse(&port_field, format_args!("{number} is not a port"));
            return None;
        };
        let is_chosen = check.value(&port_field).is_some();
        Some(Self {
            name: field,
            port_field: Some(port_field),
            is_chosen,
            address: address?.to_owned(),
            port,
        })
    }

    /// Reports whether both endpoints use the same port of the same interface.
    fn overlaps(&self, other: &Self) -> bool {
        let any = |address: &str| address.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified());
        self.port == other.port && (self.address == other.address || any(&self.address) || any(&other.address))
    }
}

/// Refuses overlapping endpoints of one container. Metrics and health may share an endpoint if it uses HTTP.
fn conflicts(check: &mut Check, endpoints: Vec<Endpoint>, metrics: &'static str) {
    let shares = check.value(&format!("{metrics}.tls")).is_none_or(Value::is_null);
    let health = metrics.replace("metrics", "health");
    let mut seen: Vec<Endpoint> = Vec::new();
    for endpoint in endpoints {
        let conflict = seen.iter().find(|other| {
            let is_pair = other.name == metrics && endpoint.name == health;
            let is_one = is_pair && shares && other.address == endpoint.address && other.port == endpoint.port;
            other.overlaps(&endpoint) && !is_one
        });
        if let Some(other) = conflict {
            // The error names the port that the settings name, rather than a default.
            let other_is_to_blame = other.is_chosen && !endpoint.is_chosen;
            let (blamed, taker) = if other_is_to_blame {
                (other, &endpoint)
            } else {
                (&endpoint, other)
            };
            check.refuse(
                blamed.port_field.as_deref().unwrap_or(blamed.name),
                format_args!("{} is taken by {}", blamed.port, taker.name),
            );
        }
        seen.push(endpoint);
    }
}

/// The meaning of a TLS block without certificate and key.
#[derive(Clone, Copy, PartialEq)]
enum Without {
    /// Plain HTTP, if all fields of the block are empty (`internal/httpsvc/http.go`).
    Plain,
    /// An error, because Envoy's listener would never start.
    Refused,
}

/// Checks the certificate files of a metrics endpoint. The only certificate files in the containers are those of xDS.
fn files(check: &mut Check, block: &str, without: Without) {
    if check.fields(block).is_none() {
        return;
    }
    let paths = ["certFile", "keyFile", "caFile"].map(|field| {
        (
            format!("{block}.{field}"),
            check.nonempty_text(&format!("{block}.{field}")),
        )
    });
    let is_empty = paths.iter().all(|(_, path)| path.is_none());
    if (paths[0].1.is_none() || paths[1].1.is_none()) && !(is_empty && without == Without::Plain) {
        check.refuse(block, "certFile and keyFile must both be set");
    }
    for (field, path) in paths {
        if let Some(path) = path.filter(|path| !["/certs/ca.crt", "/certs/tls.crt", "/certs/tls.key"].contains(path)) {
            check.refuse(
                &field,
                format_args!(
                    "the container has no file {path:?}; it has /certs/ca.crt, /certs/tls.crt and /certs/tls.key"
                ),
            );
        }
    }
}

/// Refuses a traffic class on IPv4 listeners. Setting the traffic class of an IPv4 socket fails, and Envoy refuses the listener.
fn traffic_class(check: &mut Check, listeners: &[Endpoint]) {
    let field = "envoy.listener.socketOptions.trafficClass";
    let is_set = check
        .value(field)
        .and_then(Value::as_i64)
        .is_some_and(|class| class != 0);
    let on_ipv4 = listeners.iter().find(|listener| {
        matches!(listener.name, "envoy.http" | "envoy.https")
            && listener.address.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4())
    });
    if let Some(listener) = on_ipv4.filter(|_| is_set) {
        check.refuse(
            field,
            format_args!(
                "it needs IPv6 listeners, but {}.address is {}",
                listener.name, listener.address
            ),
        );
    }
}
