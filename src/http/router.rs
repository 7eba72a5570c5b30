//! The table of routes, and from a path and method to the endpoint that answers.

use super::error::ApiError;
use super::request::Call;
use super::response::Answer;
use super::{Surface, api, health, metrics, well_known};
use crate::identity::SessionId;
use crate::limiter::Policy;
use hyper::Method;

/// One route as the README lists it.
#[derive(Debug)]
pub struct Route {
    /// The exact path: no trailing slash, no escapes, no redirects. One that ends in `{id}` stands
    /// for all with a session's id there, as we write it.
    pub path: &'static str,
    /// The methods it answers, besides OPTIONS, and HEAD where there is GET.
    pub method: &'static str,
    /// What it counts to; `None` is no limit at all.
    policies: Option<&'static [Policy]>,
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

const REGISTER: Option<&[Policy]> = Some(&[Policy::Register, Policy::Global]);
const LOGIN: Option<&[Policy]> = Some(&[Policy::Login, Policy::Global]);
const REFRESH: Option<&[Policy]> = Some(&[Policy::Refresh, Policy::Global]);
const CLIENTS: Option<&[Policy]> = Some(&[Policy::Clients]);
const GLOBAL: Option<&[Policy]> = Some(&[Policy::Global]);
/// Ends a path in which a session's id stands there.
const ID: &str = "{id}";
const EXEMPT: Option<&[Policy]> = None;

/// Every route there is.
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
    /// The route of a path on that listener.
    pub(super) fn find(path: &str, surface: Surface) -> Option<&'static Self> {
        let shown = |route: &&Route| match (surface, route.endpoint) {
            (Surface::All, _) => true,
            (Surface::Public, endpoint) => endpoint != Endpoint::Metrics,
            (Surface::Api, _) => !route.is_probe(),
            (Surface::Metrics, _) => route.is_probe(),
        };
        ROUTES.iter().find(|route| route.is_of(path)).filter(shown)
    }

    /// Whether balancers and monitoring ask for it all the time: health and metrics.
    pub(super) fn is_probe(&self) -> bool {
        [Endpoint::Liveness, Endpoint::Readiness, Endpoint::Metrics].contains(&self.endpoint)
    }

    fn is_of(&self, path: &str) -> bool {
        if self.path.ends_with(ID) { self.session_in(path).is_some() } else { self.path == path }
    }

    /// The id that stands where the route's path has `{id}`.
    fn session_in(&self, path: &str) -> Option<SessionId> {
        let start = self.path.strip_suffix(ID)?;
        SessionId::parse_canonical(path.strip_prefix(start)?)
    }

    /// The policies that a request of this route counts to.
    pub(super) fn policies(route: Option<&Self>) -> &'static [Policy] {
        route.map_or(GLOBAL, |route| route.policies).unwrap_or_default()
    }

    /// The value of `Allow` (RFC 9110 §10.2.1).
    pub(super) fn allow(&self) -> &'static str {
        match self.method {
            "GET" => "GET, HEAD, OPTIONS",
            "DELETE" => "DELETE, OPTIONS",
            _ => "POST, OPTIONS",
        }
    }
}

/// Hands the call to its endpoint.
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
        // By far the largest, and rare: every other request would carry its size.
        Endpoint::Password => Box::pin(api::password::answer(call)).await,
        Endpoint::Introspect => api::introspect::answer(call).await,
        Endpoint::Revoke => api::revoke::answer(call).await,
        Endpoint::Jwks => Ok(well_known::jwks(&call)),
        Endpoint::Metadata => Ok(well_known::metadata(&call)),
        Endpoint::OpenApi => Ok(well_known::openapi(&call)),
        Endpoint::Liveness => Ok(health::liveness()),
        Endpoint::Readiness => health::readiness(call.edge).await,
        Endpoint::Metrics => Ok(metrics::answer(call.edge).await),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a14_only_exact_paths_are_routes() {
        assert!(Route::find("/health/liveness", Surface::All).is_some());
        for path in [
            "/health/liveness/",
            "/health//liveness",
            "/health/%6Civeness",
            "/health/../metrics",
            "/Metrics",
            "",
        ] {
            assert!(Route::find(path, Surface::All).is_none(), "{path}");
        }
    }

    #[test]
    fn a_session_id_in_a_path_has_one_form() {
        let id = "3f2b8c1e-7a4d-4e9b-9c55-0123456789ab";
        let route = Route::find(&format!("/api/v1/auth/sessions/{id}"), Surface::All).unwrap();
        assert_eq!(route.path, "/api/v1/auth/sessions/{id}");
        assert_eq!(route.endpoint, Endpoint::EndSession);
        for end in ["", "{id}", "1", &id.to_uppercase(), &id.replace('-', ""), &format!("{id}/")] {
            let path = format!("/api/v1/auth/sessions/{end}");
            assert!(Route::find(&path, Surface::All).is_none(), "{path}");
        }
        assert!(Route::find(&format!("/api/v1/auth/sessions/{id}"), Surface::Metrics).is_none());
    }

    #[test]
    fn f11_metrics_can_be_kept_from_the_public_listener() {
        assert!(Route::find("/metrics", Surface::Public).is_none());
        assert!(Route::find("/metrics", Surface::Metrics).is_some());
        assert!(Route::find("/api/v1/auth/token", Surface::Metrics).is_none());
        for path in ["/health/liveness", "/health/readiness", "/metrics"] {
            assert!(Route::find(path, Surface::Api).is_none(), "{path}");
            assert!(Route::find(path, Surface::Metrics).is_some(), "{path}");
        }
        assert!(Route::find("/api/v1/auth/token", Surface::Api).is_some());
    }

    #[test]
    fn every_path_stands_once_and_health_and_metrics_are_exempt() {
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
