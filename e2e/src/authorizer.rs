//! The external authorization server of the samples and tests. The server implements Envoy's protocol
//! (`envoy.service.auth.v3`) with one simple rule, so a test can easily determine whether a request was checked.

use std::net::SocketAddr;

use anyhow::Context as _;
use envoy_types::ext_authz::v3::pb::{
    Authorization, AuthorizationServer, CheckRequest, CheckResponse, HeaderAppendAction, HttpStatusCode,
};
use envoy_types::ext_authz::v3::{
    CheckRequestExt as _, CheckResponseExt as _, DeniedHttpResponseBuilder, OkHttpResponseBuilder,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// The only `authorization` header that the server allows.
pub const CREDENTIALS: &str = "Bearer letmein";

/// The header that the server adds to an allowed request. The backend receives this header, the client does not.
pub const CHECKED_BY: &str = "x-checked-by";

/// The default value of [`CHECKED_BY`]. A server with another value proves its own check, since no client knows that value.
pub const CHECKER: &str = "slipway-ext-authz";

/// The body of the response to a refused request.
pub const REFUSAL: &str = "this host asks for credentials\n";

/// The decision on one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Envoy forwards the request to the backend, with [`CHECKED_BY`].
    Allowed,
    /// Envoy answers the request with 401.
    Refused,
}

impl Decision {
    /// Returns the decision on this `authorization` header: allowed only if the header equals [`CREDENTIALS`] exactly.
    pub fn on(authorization: Option<&str>) -> Self {
        if authorization == Some(CREDENTIALS) {
            Self::Allowed
        } else {
            Self::Refused
        }
    }

    fn response(self, mark: &str) -> CheckResponse {
        match self {
            Self::Allowed => {
                let mut ok = OkHttpResponseBuilder::new();
                // The server overwrites the header, so a client cannot forge the mark.
                ok.add_header(
                    CHECKED_BY,
                    mark,
                    Some(HeaderAppendAction::OverwriteIfExistsOrAdd),
                    false,
                );
                let mut response = CheckResponse::with_status(Status::ok("allowed"));
                response.set_http_response(ok);
                response
            }
            Self::Refused => {
                let mut denied = DeniedHttpResponseBuilder::new();
                denied.set_http_status(HttpStatusCode::Unauthorized).set_body(REFUSAL);
                denied.add_header("www-authenticate", "Bearer", None, false);
                let mut response = CheckResponse::with_status(Status::unauthenticated("credentials required"));
                response.set_http_response(denied);
                response
            }
        }
    }
}

#[derive(Debug)]
struct Authorizer {
    mark: String,
}

#[tonic::async_trait]
impl Authorization for Authorizer {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let request = request.into_inner();
        let headers = request.get_client_headers();
        let header = |name: &str| headers.and_then(|all| all.get(name)).map(String::as_str);
        let decision = Decision::on(header("authorization"));
        let unknown = "-";
        // Each decision has one log line, without the credentials.
        println!(
            "{decision:?} {} {}://{}{}",
            header(":method").unwrap_or(unknown),
            header(":scheme").or(header("x-forwarded-proto")).unwrap_or(unknown),
            header(":authority").unwrap_or(unknown),
            header(":path").unwrap_or(unknown),
        );
        Ok(Response::new(decision.response(&self.mark)))
    }
}

/// Listens on `address` (plain HTTP/2) and answers until `stop` completes; then finishes the requests in progress. Allowed
/// requests carry `mark`.
///
/// Also serves `grpc.health.v1.Health`, for kubelet's gRPC probe.
pub async fn serve(address: SocketAddr, mark: String, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listening on {address}"))?;
    serve_on(listener, mark, stop).await
}

/// Does the same as [`serve`] on a socket that already listens.
pub async fn serve_on(listener: TcpListener, mark: String, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let (health, health_server) = tonic_health::server::health_reporter();
    health.set_serving::<AuthorizationServer<Authorizer>>().await;
    tonic::transport::Server::builder()
        .add_service(health_server)
        .add_service(AuthorizationServer::new(Authorizer { mark }))
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop)
        .await
        .context("serving external authorization")
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use envoy_types::ext_authz::v3::pb::HttpResponse;
    use envoy_types::pb::envoy::service::auth::v3::attribute_context::{self, HttpRequest};
    use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, authorization_client::AuthorizationClient};
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn decision_allows_only_the_exact_credentials() {
        assert_eq!(Decision::on(Some(CREDENTIALS)), Decision::Allowed);
        for other in [
            None,
            Some(""),
            Some("Bearer"),
            Some("bearer letmein"),
            Some("Bearer letmein "),
            Some("Basic bGV0bWVpbg=="),
        ] {
            assert_eq!(Decision::on(other), Decision::Refused, "{other:?}");
        }
    }

    fn asking(authorization: Option<&str>) -> CheckRequest {
        let headers: HashMap<_, _> = authorization
            .map(|value| ("authorization".to_owned(), value.to_owned()))
            .into_iter()
            .collect();
        CheckRequest {
            attributes: Some(AttributeContext {
                request: Some(attribute_context::Request {
                    http: Some(HttpRequest {
                        headers,
                        ..HttpRequest::default()
                    }),
                    ..attribute_context::Request::default()
                }),
                ..AttributeContext::default()
            }),
        }
    }

    #[tokio::test]
    async fn server_requires_credentials() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(serve_on(listener, "a-secret".to_owned(), async { drop(stopped.await) }));
        let mut client = AuthorizationClient::connect(format!("http://{address}"))
            .await
            .expect("the server listens");

        let refused = client.check(asking(None)).await.expect("an answer").into_inner();
        assert_eq!(
            refused.status.expect("a status").code,
            tonic::Code::Unauthenticated as i32
        );
        let Some(HttpResponse::DeniedResponse(denied)) = refused.http_response else {
            panic!("not denied")
        };
        assert_eq!(denied.status.expect("a status").code, 401);
        assert_eq!(denied.body, REFUSAL);

        let allowed = client
            .check(asking(Some(CREDENTIALS)))
            .await
            .expect("an answer")
            .into_inner();
        assert_eq!(allowed.status.expect("a status").code, tonic::Code::Ok as i32);
        let Some(HttpResponse::OkResponse(ok)) = allowed.http_response else {
            panic!("not allowed")
        };
        let marks: Vec<_> = ok.headers.into_iter().filter_map(|option| option.header).collect();
        assert_eq!(
            (marks[0].key.as_str(), marks[0].value.as_str()),
            (CHECKED_BY, "a-secret")
        );

        drop(client);
        stop.send(()).expect("the server runs");
        server.await.expect("no panic").expect("a clean end");
    }
}
