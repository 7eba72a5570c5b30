//! The table of routes, and the dispatch of a request to its endpoint.

use super::rate_limit::{CLIENTS, EXEMPT, GLOBAL, LOGIN, REFRESH, REGISTER};
use super::request::Call;
use super::response::Answer;
use super::response::error::ApiError;
use super::{RouteSet, api, health, metrics_page, well_known};
use crate::identity::SessionId;
use crate::limiter::Policy;
use hyper::Method;

/// One route, as docs/http-api.md lists it.
#[derive(Debug)]
pub struct Route {
    /// The exact path: no trailing slash, no escapes, no redirects.
    ///
    /// `{id}` at the end matches a session id in its canonical form.
    pub path: &'static str,
    /// The method. Each route also allows OPTIONS, and a GET route allows HEAD.
    pub method: &'static str,
    /// The rate limits that a request counts against.
    policies: &'static [Policy],
    endpoint: Endpoint,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endpoint {
    Register,
    Token,
    Refresh,
    Logout,
    LogoutAll,
    Me,
    Sessions,
    EndSession,
    Password,
    Introspect,
    Revoke,
    Jwks,
    Metadata,
    OpenApi,
    Liveness,
    Readiness,
    Metrics,
}

/// The end of a path that matches a session id.
const ID: &str = "{id}";

/// All routes.
#[rustfmt::skip]
pub const ROUTES: &[Route] = &[
    Route { method: "POST", path: "/api/v1/auth/register", policies: REGISTER, endpoint: Endpoint::Register },
    Route { method: "POST", path: "/api/v1/auth/token",    policies: LOGIN,    endpoint: Endpoint::Token },
    Route { method: "POST", path: "/api/v1/auth/refresh",  policies: REFRESH,  endpoint: Endpoint::Refresh },
    Route { method: "POST", path: "/api/v1/auth/logout",   policies: GLOBAL,   endpoint: Endpoint::Logout },
    Route { method: "GET",  path: "/api/v1/auth/me",       policies: GLOBAL,   endpoint: Endpoint::Me },
    Route { method: "POST", path: "/api/v1/auth/logout-all",    policies: GLOBAL, endpoint: Endpoint::LogoutAll },
    Route { method: "GET",  path: "/api/v1/auth/sessions",      policies: GLOBAL, endpoint: Endpoint::Sessions },
    Route { method: "DELETE", path: "/api/v1/auth/sessions/{id}", policies: GLOBAL, endpoint: Endpoint::EndSession },
    Route { method: "POST", path: "/api/v1/auth/password",      policies: LOGIN,  endpoint: Endpoint::Password },
    Route { method: "POST", path: "/api/v1/auth/introspect", policies: CLIENTS, endpoint: Endpoint::Introspect },
    Route { method: "POST", path: "/api/v1/auth/revoke",   policies: CLIENTS,  endpoint: Endpoint::Revoke },
    Route { method: "GET",  path: well_known::JWKS,        policies: GLOBAL,   endpoint: Endpoint::Jwks },
    Route { method: "GET",  path: well_known::METADATA,    policies: GLOBAL,   endpoint: Endpoint::Metadata },
    Route { method: "GET",  path: well_known::OPENAPI,     policies: GLOBAL,   endpoint: Endpoint::OpenApi },
    Route { method: "GET",  path: "/health/liveness",      policies: EXEMPT,   endpoint: Endpoint::Liveness },
    Route { method: "GET",  path: "/health/readiness",     policies: EXEMPT,   endpoint: Endpoint::Readiness },
    Route { method: "GET",  path: "/metrics",              policies: EXEMPT,   endpoint: Endpoint::Metrics },
];

impl Route {
    /// Finds the route of a path on a listener.
    pub(super) fn find(path: &str, routes: RouteSet) -> Option<&'static Self> {
        let shown = |route: &&Route| match (routes, route.endpoint) {
            (RouteSet::All, _) => true,
            (RouteSet::Public, endpoint) => endpoint != Endpoint::Metrics,
            (RouteSet::Api, _) => !route.is_probe(),
            (RouteSet::Metrics, _) => route.is_probe(),
        };
        ROUTES.iter().find(|route| route.matches(path)).filter(shown)
    }

    /// Whether load balancers and monitoring poll this route: health and metrics.
    pub(super) fn is_probe(&self) -> bool {
        [Endpoint::Liveness, Endpoint::Readiness, Endpoint::Metrics].contains(&self.endpoint)
    }

    fn matches(&self, path: &str) -> bool {
        if self.path.ends_with(ID) { self.session_in(path).is_some() } else { self.path == path }
    }

    /// Returns the session id in the path, in place of `{id}`.
    fn session_in(&self, path: &str) -> Option<SessionId> {
        let start = self.path.strip_suffix(ID)?;
        SessionId::parse_canonical(path.strip_prefix(start)?)
    }

    /// Returns the rate limits that a request counts against.
    pub(super) fn policies(route: Option<&Self>) -> &'static [Policy] {
        route.map_or(GLOBAL, |route| route.policies)
    }

    /// Returns the value of the `Allow` header (RFC 9110 §10.2.1).
    pub(super) fn allow(&self) -> &'static str {
        match self.method {
            "GET" => "GET, HEAD, OPTIONS",
            "DELETE" => "DELETE, OPTIONS",
            _ => "POST, OPTIONS",
        }
    }
}

/// Calls the endpoint of the route.
pub(super) async fn dispatch(
    route: Option<&'static Route>,
    call: Call<'_>,
) -> Result<Answer, ApiError> {
    if call.request.method() == Method::OPTIONS && call.request.uri().path() == "*" {
        return Ok(Answer::options("GET, HEAD, POST, DELETE, OPTIONS"));
    }
    let route = route.ok_or(ApiError::NotFound)?;
    let method = call.request.method();
    if method == Method::OPTIONS {
        return Ok(Answer::options(route.allow()));
    }
    let matches =
        method.as_str() == route.method || (route.method == "GET" && method == Method::HEAD);
    if !matches {
        return Err(ApiError::MethodNotAllowed { allow: route.allow() });
    }
    match route.endpoint {
        Endpoint::Register => api::register::answer(call).await,
        Endpoint::Token => api::token::answer(call).await,
        Endpoint::Refresh => api::refresh::answer(call).await,
        Endpoint::Logout => api::logout::answer(call).await,
        Endpoint::LogoutAll => api::logout_all::answer(call).await,
        Endpoint::Me => api::me::answer(call).await,
        Endpoint::Sessions => api::sessions::answer(call).await,
        Endpoint::EndSession => {
            let session = route.session_in(call.request.uri().path());
            api::end_session::answer(call, session.ok_or(ApiError::NotFound)?).await
        }
        // Boxed: its future is by far the largest, and every request would reserve that size.
        Endpoint::Password => Box::pin(api::password::answer(call)).await,
        Endpoint::Introspect => api::introspect::answer(call).await,
        Endpoint::Revoke => api::revoke::answer(call).await,
        Endpoint::Jwks => Ok(well_known::jwks(&call)),
        Endpoint::Metadata => Ok(well_known::metadata(&call)),
        Endpoint::OpenApi => Ok(well_known::openapi(&call)),
        Endpoint::Liveness => Ok(health::liveness()),
        Endpoint::Readiness => health::readiness(call.app).await,
        Endpoint::Metrics => Ok(metrics_page::answer(call.app).await),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Reliability: A14.
    #[test]
    fn only_exact_paths_are_routes() {
        assert!(Route::find("/health/liveness", RouteSet::All).is_some());
        for path in [
            "/health/liveness/",
            "/health//liveness",
            "/health/%6Civeness",
            "/health/../metrics",
            "/Metrics",
            "",
        ] {
            assert!(Route::find(path, RouteSet::All).is_none(), "{path}");
        }
    }

    #[test]
    fn only_the_canonical_form_of_a_session_id_is_a_route() {
        let id = "3f2b8c1e-7a4d-4e9b-9c55-0123456789ab";
        let route = Route::find(&format!("/api/v1/auth/sessions/{id}"), RouteSet::All).unwrap();
        assert_eq!(route.path, "/api/v1/auth/sessions/{id}");
        assert_eq!(route.endpoint, Endpoint::EndSession);
        for end in ["", "{id}", "1", &id.to_uppercase(), &id.replace('-', ""), &format!("{id}/")] {
            let path = format!("/api/v1/auth/sessions/{end}");
            assert!(Route::find(&path, RouteSet::All).is_none(), "{path}");
        }
        assert!(Route::find(&format!("/api/v1/auth/sessions/{id}"), RouteSet::Metrics).is_none());
    }

    // Reliability: F11.
    #[test]
    fn metrics_and_health_can_be_left_out_of_the_public_listener() {
        assert!(Route::find("/metrics", RouteSet::Public).is_none());
        assert!(Route::find("/metrics", RouteSet::Metrics).is_some());
        assert!(Route::find("/api/v1/auth/token", RouteSet::Metrics).is_none());
        for path in ["/health/liveness", "/health/readiness", "/metrics"] {
            assert!(Route::find(path, RouteSet::Api).is_none(), "{path}");
            assert!(Route::find(path, RouteSet::Metrics).is_some(), "{path}");
        }
        assert!(Route::find("/api/v1/auth/token", RouteSet::Api).is_some());
    }

    #[test]
    fn paths_are_unique_and_only_health_and_metrics_are_exempt() {
        let mut paths: Vec<_> = ROUTES.iter().map(|route| route.path).collect();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), ROUTES.len());
        for route in ROUTES {
            let exempt = Route::policies(Some(route)).is_empty();
            assert_eq!(exempt, route.is_probe(), "{}", route.path);
        }
        assert_eq!(Route::policies(None), &[Policy::Global]);
    }
}
