//! Checks the format of Envoy's access log as Contour does at its start (Contour v1.33.8,
//! `apis/projectcontour/v1alpha1/accesslog.go`). Each operator must be known, and must have an argument if it needs one. Neither Contour
//! nor this module checks the arguments; Envoy refuses its listeners if an argument is invalid.

use super::Check;

/// Checks `envoy.logging` and the files that Envoy logs to.
pub fn check(check: &mut Check) {
    let field = "envoy.logging.accessLogFormat";
    if let Some(format) = check
        .nonempty_text(field)
        .filter(|format| !["envoy", "json"].contains(format))
    {
        check.refuse(field, format_args!("{format:?} is not one of envoy and json"));
    }
    let field = "envoy.logging.accessLogFormatString";
    if let Some(format) = check.nonempty_text(field) {
        if let Err(problem) = operators(format) {
            check.refuse(field, problem);
        }
        if !format.ends_with('\n') {
            check.refuse(field, "it must end in a newline");
        }
    }
    let field = "envoy.logging.accessLogJSONFields";
    for entry in check.texts(field) {
        let problem = match entry.split_once('=') {
            Some((name, "")) => Err(format!("{name:?} has no value")),
            Some((_, format)) => operators(format),
            None if is_known_field(entry) => Ok(()),
            None => Err(format!(
                "{entry:?} is not a field that Contour knows; add a format to it: {entry}=%…%"
            )),
        };
        if let Err(problem) = problem {
            check.refuse(field, problem);
        }
    }
    // Envoy can write to no other path in its container, and refuses the listener if it can't open the log.
    for field in ["envoy.http.accessLog", "envoy.https.accessLog"] {
        if let Some(path) = check
            .nonempty_text(field)
            .filter(|path| !["/dev/stdout", "/dev/stderr", "/dev/null"].contains(path))
        {
            check.refuse(
                field,
                format_args!("{path:?} can't be written; it must be /dev/stdout, /dev/stderr or /dev/null"),
            );
        }
    }
}

/// Checks every operator of a format. Contour finds operators with the expression `%(([A-Z_]+)(\([^)]+\)(:[0-9]+)?)?%)?`.
fn operators(format: &str) -> Result<(), String> {
    let mut rest = format;
    while let Some(start) = rest.find('%') {
        let Some((operator, after)) = Operator::parse(&rest[start + 1..]) else {
            return Err(format!(
                "{:?} is not an operator of Envoy (%NAME%, %NAME(ARGUMENT)% or %NAME(ARGUMENT):LENGTH%)",
                &rest[start..]
            ));
        };
        operator.check()?;
        rest = after;
    }
    Ok(())
}

struct Operator<'a> {
    name: &'a str,
    has_arguments: bool,
    has_length: bool,
}

impl<'a> Operator<'a> {
    /// Parses the operator whose first `%` immediately precedes this text. Returns the operator and the text after it, or None if the text
    /// is not an operator.
    fn parse(text: &'a str) -> Option<(Self, &'a str)> {
        let end = text
            .find(|c: char| !c.is_ascii_uppercase() && c != '_')
            .unwrap_or(text.len());
        let (name, mut rest) = text.split_at(end);
        let (mut has_arguments, mut has_length) = (false, false);
        if let Some(arguments) = rest.strip_prefix('(') {
            rest = arguments
                .split_once(')')
                .filter(|(arguments, _)| !arguments.is_empty())?
                .1;
            has_arguments = true;
            if let Some(length) = rest.strip_prefix(':') {
                rest = length.trim_start_matches(|c: char| c.is_ascii_digit());
                has_length = true;
                if rest.len() == length.len() {
                    return None;
                }
            }
        }
        let after = rest.strip_prefix('%').filter(|_| !name.is_empty())?;
        Some((
            Self {
                name,
                has_arguments,
                has_length,
            },
            after,
        ))
    }

    fn check(&self) -> Result<(), String> {
        let name = self.name;
        let needs_arguments = NEED_ARGUMENTS.contains(&name);
        if !needs_arguments && !SIMPLE.contains(&name) {
            Err(format!("{name} is not an operator that Contour knows"))
        } else if needs_arguments && !self.has_arguments {
            Err(format!("operator {name} needs an argument"))
        } else if name == "START_TIME" && self.has_length {
            Err(format!("operator {name} can't have a length"))
        } else {
            Ok(())
        }
    }
}

fn is_known_field(name: &str) -> bool {
    FIELDS.contains(&name) || SIMPLE.contains(&name.to_uppercase().as_str())
}

/// `jsonFields`: the names for which Contour has a format.
const FIELDS: [&str; 14] = [
    "@timestamp",
    "ts",
    "authority",
    "method",
    "path",
    "request_id",
    "uber_trace_id",
    "upstream_service_time",
    "user_agent",
    "x_forwarded_for",
    "x_trace_id",
    "contour_config_kind",
    "contour_config_namespace",
    "contour_config_name",
];

/// `envoyComplexOperators`, without `START_TIME`, whose argument is optional.
const NEED_ARGUMENTS: [&str; 6] = ["ENVIRONMENT", "METADATA", "REQ", "REQ_WITHOUT_QUERY", "RESP", "TRAILER"];

/// `envoySimpleOperators`.
#[rustfmt::skip]
const SIMPLE: [&str; 76] = [
    "BYTES_RECEIVED", "BYTES_SENT", "CONNECTION_ID", "CONNECTION_TERMINATION_DETAILS",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS", "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_DIRECT_REMOTE_PORT", "DOWNSTREAM_HEADER_BYTES_RECEIVED", "DOWNSTREAM_HEADER_BYTES_SENT",
    "DOWNSTREAM_LOCAL_ADDRESS", "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", "DOWNSTREAM_LOCAL_PORT",
    "DOWNSTREAM_LOCAL_SUBJECT", "DOWNSTREAM_LOCAL_URI_SAN", "DOWNSTREAM_PEER_CERT", "DOWNSTREAM_PEER_CERT_V_END",
    "DOWNSTREAM_PEER_CERT_V_START", "DOWNSTREAM_PEER_FINGERPRINT_1", "DOWNSTREAM_PEER_FINGERPRINT_256",
    "DOWNSTREAM_PEER_ISSUER", "DOWNSTREAM_PEER_SERIAL", "DOWNSTREAM_PEER_SUBJECT", "DOWNSTREAM_PEER_URI_SAN",
    "DOWNSTREAM_REMOTE_ADDRESS", "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", "DOWNSTREAM_REMOTE_PORT",
    "DOWNSTREAM_TLS_CIPHER", "DOWNSTREAM_TLS_SESSION_ID", "DOWNSTREAM_TLS_VERSION", "DOWNSTREAM_WIRE_BYTES_RECEIVED",
    "DOWNSTREAM_WIRE_BYTES_SENT", "DURATION", "FILTER_CHAIN_NAME", "GRPC_STATUS", "GRPC_STATUS_NUMBER", "HOSTNAME",
    "LOCAL_REPLY_BODY", "PROTOCOL", "REQUEST_HEADERS_BYTES", "REQUESTED_SERVER_NAME", "REQUEST_DURATION",
    "REQUEST_TX_DURATION", "RESPONSE_CODE", "RESPONSE_CODE_DETAILS", "RESPONSE_DURATION", "RESPONSE_FLAGS",
    "RESPONSE_HEADERS_BYTES", "RESPONSE_TRAILERS_BYTES", "RESPONSE_TX_DURATION", "ROUTE_NAME", "START_TIME",
    "UPSTREAM_CLUSTER", "UPSTREAM_FILTER_STATE", "UPSTREAM_HEADER_BYTES_RECEIVED", "UPSTREAM_HEADER_BYTES_SENT",
    "UPSTREAM_HOST", "UPSTREAM_LOCAL_ADDRESS", "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", "UPSTREAM_LOCAL_PORT",
    "UPSTREAM_PEER_CERT", "UPSTREAM_PEER_CERT_V_END", "UPSTREAM_PEER_CERT_V_START", "UPSTREAM_PEER_ISSUER",
    "UPSTREAM_PEER_SUBJECT", "UPSTREAM_PROTOCOL", "UPSTREAM_REMOTE_ADDRESS", "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "UPSTREAM_REMOTE_PORT", "UPSTREAM_REQUEST_ATTEMPT_COUNT", "UPSTREAM_TLS_CIPHER", "UPSTREAM_TLS_SESSION_ID",
    "UPSTREAM_TLS_VERSION", "UPSTREAM_TRANSPORT_FAILURE_REASON", "UPSTREAM_WIRE_BYTES_RECEIVED",
    "UPSTREAM_WIRE_BYTES_SENT", "VIRTUAL_CLUSTER_NAME",
];
