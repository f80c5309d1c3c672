use serde_json::{Value, json};

use super::{check, size, takes_a_header};
use crate::api::ContourDeploymentSpec;

fn problems(settings: &Value) -> Vec<String> {
    let spec: ContourDeploymentSpec = serde_json::from_value(json!({"runtimeSettings": settings})).unwrap();
    check(&spec)
}

/// Returns settings with one field, for example `envoy.http.port`.
fn with(path: &str, value: Value) -> Value {
    path.rsplit('.').fold(value, |value, key| json!({ key: value }))
}

#[test]
fn check_accepts_settings_that_contour_accepts() {
    let table = [
        json!({}),
        with(
            "envoy.timeouts",
            json!({"requestTimeout": "infinity", "connectionIdleTimeout": "", "connectTimeout": "2s"}),
        ),
        with(
            "envoy.listener.tls",
            json!({"minimumProtocolVersion": "1.3", "cipherSuites": ["[AES128-SHA|AES256-SHA]", "AES128-SHA"]}),
        ),
        with(
            "envoy.listener.tls",
            json!({"minimumProtocolVersion": "", "maximumProtocolVersion": "1.2"}),
        ),
        with(
            "envoy.cluster",
            json!({"dnsLookupFamily": "all", "circuitBreakers": {"maxConnections": 0}}),
        ),
        with("envoy.defaultHTTPVersions", json!(["HTTP/2", "HTTP/1.1"])),
        with(
            "envoy.logging",
            json!({"accessLogFormat": "json", "accessLogJSONFields": [
                "@timestamp", "grpc_status", "Duration", "start=%START_TIME(%s.%3f)%", "h=%REQ(X-A?:PATH):20%", "text=plain",
            ]}),
        ),
        with(
            "envoy.logging.accessLogFormatString",
            json!("[%START_TIME%] %REQ(:METHOD)% %RESPONSE_CODE%%RESPONSE_FLAGS%\n"),
        ),
        with(
            "envoy.http",
            json!({"address": "::", "port": 80, "accessLog": "/dev/stderr"}),
        ),
        with("envoy.listener.socketOptions", json!({"tos": 64})),
        with(
            "envoy",
            json!({"http": {"address": "::"}, "https": {"address": "::"}, "listener": {"socketOptions": {"trafficClass": 64}}}),
        ),
        with("envoy.listener.socketOptions", json!({"trafficClass": 0})),
        with("envoy.network", json!({"adminPort": 65_535})),
        with("envoy.network", json!({"adminPort": -1})),
        json!({"metrics": {"address": "127.0.0.2", "port": 7000}, "debug": {"address": "127.0.0.1", "port": 7000}}),
        json!({"health": {"port": 8100}, "metrics": {"address": "127.0.0.1", "port": 8200}, "debug": {"address": "localhost"}}),
        json!({"health": {"port": 9000}, "metrics": {"port": 9000}}),
        json!({"metrics": {"port": 8100, "tls": {"certFile": "/certs/tls.crt", "keyFile": "/certs/tls.key", "caFile": "/certs/ca.crt"}}}),
        with(
            "envoy",
            json!({"omEnforcedHealth": {"address": "0.0.0.0", "port": 8003}, "network": {"adminPort": 9002, "numTrustedHops": 2}}),
        ),
        with(
            "tracing",
            json!({"extensionService": {"namespace": "a", "name": "b"}, "overallSampling": "10.5", "customTags": [
                {"tagName": "a", "literal": "x"}, {"tagName": "b", "requestHeaderName": "X-B"},
            ]}),
        ),
        with(
            "rateLimitService",
            json!({
                "extensionService": {"namespace": "a", "name": "b"}, "domain": "d",
                "defaultGlobalRateLimitPolicy": {"descriptors": [{"entries": [{"remoteAddress": {}}, {"genericKey": {"value": "v"}}]}]},
            }),
        ),
        with(
            "policy.requestHeaders",
            json!({"set": {"Host": "example.com", "X-A": "%REQ(X-B)%"}, "remove": ["X-C"]}),
        ),
        with(
            "globalExtAuth",
            json!({"extensionRef": {"namespace": "a", "name": "b"}, "responseTimeout": "500ms"}),
        ),
    ];
    for settings in table {
        assert_eq!(problems(&settings), [] as [&str; 0], "{settings}");
    }
}

#[test]
#[rustfmt::skip] // a table
fn check_names_the_path_of_each_setting_that_it_refuses() {
    let format = "envoy.logging.accessLogFormatString";
    let fields = "envoy.logging.accessLogJSONFields";
    let table = [
        ("envoy.timeouts.requestTimeout", json!("5 minutes"), "not a Go duration"),
        ("envoy.timeouts.connectionIdleTimeout", json!("s"), "not a Go duration"),
        ("envoy.timeouts.streamIdleTimeout", json!(".s"), "not a Go duration"),
        ("envoy.timeouts.maxConnectionDuration", json!("1"), "not a Go duration"),
        ("envoy.timeouts.delayedCloseTimeout", json!("-1s"), "negative"),
        ("envoy.timeouts.connectionShutdownGracePeriod", json!("never"), "not a Go duration"),
        ("envoy.timeouts.connectTimeout", json!("infinity"), "not a Go duration"),
        ("envoy.timeouts.connectTimeout", json!(""), "not a Go duration"),
        ("envoy.network.numTrustedHops", json!(-1), "-1 is not between 0 and"),
        ("envoy.cluster.circuitBreakers.maxRetries", json!(-1), "-1 is not between 0 and"),
        ("envoy.listener.tls.minimumProtocolVersion", json!("1.1"), "not a TLS version"),
        ("envoy.listener.tls.maximumProtocolVersion", json!("TLSv1.3"), "not a TLS version"),
        ("envoy.listener.tls.cipherSuites", json!(["AES128-SHA", "RC4"]), "\"RC4\""),
        ("envoy.listener.tls.cipherSuites", json!(["[]"]), "\"[]\""),
        ("envoy.listener.tls.cipherSuites", json!([""]), "\"\""),
        ("envoy.cluster.upstreamTLS.cipherSuites", json!(["[AES128-SHA|RC4]"]), "RC4"),
        ("envoy.defaultHTTPVersions", json!(["HTTP/3"]), "\"HTTP/3\""),
        ("envoy.cluster.dnsLookupFamily", json!("V4"), "\"V4\""),
        ("envoy.logging.accessLogFormat", json!("text"), "\"text\""),
        (format, json!("%START_TIME%"), "newline"),
        (format, json!("100%\n"), "not an operator"),
        (format, json!("%REQ()%\n"), "not an operator"),
        (format, json!("%REQ(A):%\n"), "not an operator"),
        (format, json!("%req(A)%\n"), "not an operator"),
        (format, json!("%NOPE%\n"), "NOPE is not an operator that Contour knows"),
        (format, json!("%REQ%\n"), "needs an argument"),
        (format, json!("%START_TIME(%s):3%\n"), "can't have a length"),
        (fields, json!(["nope"]), "\"nope\" is not a field"),
        (fields, json!(["a="]), "\"a\" has no value"),
        (fields, json!(["a=%NOPE%"]), "NOPE"),
        ("envoy.http.accessLog", json!("/var/log/envoy.log"), "can't be written"),
        ("health.port", json!(8001), "taken by Contour's xDS server"),
        ("metrics.port", json!(70_000), "not a port"),
        ("debug.port", json!(-1), "not a port"),
        ("debug.port", json!(8000), "taken by metrics"),
        ("health.address", json!("127.0.0.1"), "probes can't reach"),
        ("health.address", json!("localhost"), "not an IP address"),
        ("metrics.address", json!("10.0.0.1"), "not an address that every pod has"),
        ("envoy.http.address", json!("localhost"), "not an IP address"),
        ("envoy.https.port", json!(8080), "taken by envoy.http"),
        ("envoy.http.port", json!(8090), "taken by the shutdown manager"),
        ("envoy.network.adminPort", json!(8443), "taken by envoy.https"),
        ("envoy.https.port", json!(9001), "taken by envoy.network.adminPort"),
        ("envoy.network.adminPort", json!(65_536), "not a port"),
        ("metrics.tls.certFile", json!("/etc/tls.crt"), "no file \"/etc/tls.crt\""),
        ("envoy.listener.socketOptions.trafficClass", json!(64), "needs IPv6 listeners"),
        ("policy.requestHeaders.set", json!({"X_A": "b"}), "\"X_A\" is not the name of a header"),
        ("policy.requestHeaders.set", json!({"host": "%REQ(X-Host)%"}), "can't be copied from another header"),
        ("policy.responseHeaders.set", json!({"Host": "a"}), "can't be set in responses"),
        ("policy.responseHeaders.remove", json!([""]), "not the name of a header"),
    ];
    for (path, value, why) in table {
        let problems = problems(&with(path, value.clone()));
        let expected = format!("spec.runtimeSettings.{path}: ");
        assert!(
            problems
                .iter()
                .any(|problem| problem.starts_with(&expected) && problem.contains(why)),
            "{path}: {value}: {problems:?}"
        );
    }
}

#[test]
#[rustfmt::skip] // a table
fn check_refuses_settings_that_conflict_with_each_other() {
    let reference = json!({"namespace": "a", "name": "b"});
    let table = [
        (with("envoy.listener.tls", json!({"minimumProtocolVersion": "1.3", "maximumProtocolVersion": "1.2"})), "envoy.listener.tls.minimumProtocolVersion"),
        // Metrics use HTTPS on the port on which health uses HTTP, because both have the same default.
        (with("metrics.tls", json!({"certFile": "/certs/tls.crt", "keyFile": "/certs/tls.key"})), "health.port"),
        (with("envoy.metrics.tls", json!({"certFile": "/certs/tls.crt", "keyFile": "/certs/tls.key"})), "envoy.health.port"),
        (json!({"metrics": {"port": 8100, "tls": {"keyFile": "/certs/tls.key"}}}), "metrics.tls"),
        (with("envoy.metrics", json!({"port": 8100, "tls": {}})), "envoy.metrics.tls"),
        (json!({"health": {"address": "::"}}), "health.port"),
        (with("envoy.omEnforcedHealth", json!({"address": "0.0.0.0", "port": 8002})), "envoy.omEnforcedHealth.port"),
        (with("envoy.omEnforcedHealth", json!({"port": 8003})), "envoy.omEnforcedHealth.address"),
        (with("envoy.omEnforcedHealth", json!({"address": "0.0.0.0"})), "envoy.omEnforcedHealth.port"),
        // The settings name both ports; the error names the field of the later one.
        (with("envoy", json!({"https": {"port": 9500}, "network": {"adminPort": 9500}})), "envoy.network.adminPort"),
        (json!({"metrics": {"address": "127.0.0.1", "port": 7000}, "debug": {"address": "127.0.0.1", "port": 7000}}), "debug.port"),
        (with("envoy", json!({"http": {"address": "::"}, "listener": {"socketOptions": {"trafficClass": 64}}})), "envoy.listener.socketOptions.trafficClass"),
        (with("globalExtAuth", json!({"extensionRef": reference, "responseTimeout": "s"})), "globalExtAuth.responseTimeout"),
        (with("rateLimitService", json!({"extensionService": reference, "domain": ""})), "rateLimitService.domain"),
        (with("rateLimitService", json!({"extensionService": reference, "domain": "d", "defaultGlobalRateLimitPolicy": {"descriptors": [{"entries": [{"remoteAddress": {}, "genericKey": {"value": "v"}}]}]}, })), "rateLimitService.defaultGlobalRateLimitPolicy.descriptors"),
        (with("tracing", json!({"extensionService": reference, "overallSampling": "150"})), "tracing.overallSampling"),
        (with("tracing", json!({"extensionService": reference, "overallSampling": "NaN"})), "tracing.overallSampling"),
        (with("tracing", json!({"extensionService": reference, "overallSampling": "ten"})), "tracing.overallSampling"),
        (with("tracing", json!({"extensionService": reference, "customTags": [ {"tagName": "a", "literal": "x"}, {"tagName": "a", "literal": "y"}, ]})), "tracing.customTags"),
        (with("tracing", json!({"extensionService": reference, "customTags": [{"tagName": "a", "literal": "x", "requestHeaderName": "y"}]})), "tracing.customTags"),
    ];
    for (settings, path) in table {
        let problems = problems(&settings);
        let expected = format!("spec.runtimeSettings.{path}: ");
        assert!(
            problems.iter().any(|problem| problem.starts_with(&expected)),
            "{settings}: {problems:?}"
        );
    }
}

#[test]
fn check_skips_values_of_the_wrong_type() {
    for settings in [
        with("envoy.http.port", json!("80")),
        with("envoy.timeouts.requestTimeout", json!(5)),
        with("envoy.logging", json!([])),
    ] {
        assert_eq!(problems(&settings), [] as [&str; 0], "{settings}");
    }
}

#[test]
fn takes_a_header_finds_header_names_as_contour_does() {
    for (value, takes_one) in [
        ("a%REQ(X-Host)%b", true),
        ("%REQ()%%REQ(X-Host)%", true),
        ("%REQ()%", false),
        ("%REQ(X-Host", false),
        ("%REQ(:authority)%", false),
    ] {
        assert_eq!(takes_a_header(value), takes_one, "{value}");
    }
}

#[test]
fn check_refuses_settings_that_exceed_the_annotation_limit() {
    let header = |length: usize| with("policy.requestHeaders.set", json!({"X-A": "a".repeat(length)}));
    let entries = |count: usize| {
        let entry = json!({"requestHeaderValueMatch": {"value": "v"}});
        let policy = json!({"descriptors": [{"entries": vec![entry; count]}]});
        let reference = json!({"namespace": "a", "name": "b"});
        json!({"rateLimitService": {
            "extensionService": reference, "domain": "d", "failOpen": false, "defaultGlobalRateLimitPolicy": policy,
        }})
    };
    let fits = size::LIMIT - header(0).to_string().len();
    assert_eq!(problems(&header(fits)), [] as [&str; 0]);
    // The size includes a default that the API server adds.
    let many = 4_500;
    assert!(entries(many).to_string().len() < size::LIMIT);
    for (settings, bytes) in [
        (header(fits + 1), size::LIMIT + 1),
        (entries(many), entries(many).to_string().len() + many * 19),
    ] {
        let problems = problems(&settings);
        let [problem] = &problems[..] else {
            panic!("{problems:?}")
        };
        assert!(problem.starts_with("spec.runtimeSettings: "), "{problem}");
        for part in [bytes, size::LIMIT, 262_144] {
            assert!(problem.contains(&format!(" {part}")), "{part} is not in: {problem}");
        }
    }
}
