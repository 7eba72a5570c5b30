//! The table of routes, and the dispatch of a request to its endpoint.

use super::rate_limit::{CLIENTS, EXEMPT, GLOBAL, LOGIN, REFRESH, REGISTER};
use super::request::Call;
use super::response::Answer;
use super::response::error::ApiError;
use super::{RouteSet, api, health, metrics_page, well_known};
use crate::identity::SessionId;
use crate::limiter::Policy;
use futures_util::future::BoxFuture;
use hyper::Method;
use hyper::header::HeaderValue;

/// One row of the table. Rows may share a path if their methods differ.
pub struct Route {
    kind: RouteKind,
    /// The method. Each path also allows OPTIONS, and a path with GET allows HEAD.
    pub method: Method,
    /// The exact path: no trailing slash, no escapes, no redirects.
    ///
    /// `{id}` at the end matches a session id in its canonical form.
    pub path: &'static str,
    /// The rate limits that a request counts against.
    limits: &'static [Policy],
    endpoint: Endpoint,
}

/// What a route is for. It decides which listeners serve the route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RouteKind {
    Api,
    Health,
    Metrics,
}

/// The function that answers a request.
///
/// Its future is boxed, so that a request does not reserve the size of the largest endpoint.
type Endpoint = for<'a> fn(Call<'a>) -> BoxFuture<'a, Result<Answer, ApiError>>;

/// Builds a table: kind, method and path, then rate limits, then the endpoint.
macro_rules! routes {
    ($($kind:ident $method:ident $path:expr, $limits:expr, $endpoint:path;)*) => {
        &[$(Route {
            kind: RouteKind::$kind,
            method: Method::$method,
            path: $path,
            limits: $limits,
            endpoint: |call| Box::pin($endpoint(call)),
        }),*]
    };
}

/// All routes.
pub const ROUTES: &[Route] = routes! {
    Api     POST   "/api/v1/auth/register",      REGISTER, api::register::answer;
    Api     POST   "/api/v1/auth/token",         LOGIN,    api::token::answer;
    Api     POST   "/api/v1/auth/refresh",       REFRESH,  api::refresh::answer;
    Api     POST   "/api/v1/auth/logout",        GLOBAL,   api::logout::answer;
    Api     GET    "/api/v1/auth/me",            GLOBAL,   api::me::answer;
    Api     POST   "/api/v1/auth/logout-all",    GLOBAL,   api::logout_all::answer;
    Api     GET    "/api/v1/auth/sessions",      GLOBAL,   api::sessions::answer;
    Api     DELETE "/api/v1/auth/sessions/{id}", GLOBAL,   api::end_session::answer;
    Api     POST   "/api/v1/auth/password",      LOGIN,    api::password::answer;
    Api     POST   "/api/v1/auth/introspect",    CLIENTS,  api::introspect::answer;
    Api     POST   "/api/v1/auth/revoke",        CLIENTS,  api::revoke::answer;
    Api     GET    well_known::JWKS,             GLOBAL,   well_known::jwks;
    Api     GET    well_known::METADATA,         GLOBAL,   well_known::metadata;
    Api     GET    well_known::OPENAPI,          GLOBAL,   well_known::openapi;
    Health  GET    "/health/liveness",           EXEMPT,   health::liveness;
    Health  GET    "/health/readiness",          EXEMPT,   health::readiness;
    Metrics GET    "/metrics",                   EXEMPT,   metrics_page::answer;
};

/// The end of a path that matches a session id.
const ID: &str = "{id}";

/// The set of rate limits of each route, and of unknown paths. Sets may repeat.
pub fn limit_sets() -> impl Iterator<Item = &'static [Policy]> {
    ROUTES.iter().map(|route| route.limits).chain([Route::limits(None)])
}

impl Route {
    /// Finds the route of a request on a listener.
    ///
    /// If the path has no route for the method, this is another route of the path. Its limits
    /// apply, and [`dispatch`] refuses the request.
    pub(super) fn find(routes: RouteSet, method: &Method, path: &str) -> Option<&'static Self> {
        find(ROUTES, routes, method, path)
    }

    /// Whether load balancers and monitoring poll this route: health and metrics.
    pub(super) fn is_probe(&self) -> bool {
        self.kind != RouteKind::Api
    }

    /// Returns the rate limits that a request counts against.
    pub(super) fn limits(route: Option<&Self>) -> &'static [Policy] {
        route.map_or(GLOBAL, |route| route.limits)
    }

    /// Returns the session id in the path, in place of `{id}`.
    pub(super) fn session_in(&self, path: &str) -> Option<SessionId> {
        let start = self.path.strip_suffix(ID)?;
        SessionId::parse_canonical(path.strip_prefix(start)?)
    }

    fn matches(&self, path: &str) -> bool {
        if self.path.ends_with(ID) { self.session_in(path).is_some() } else { self.path == path }
    }

    fn allows(&self, method: &Method) -> bool {
        self.method == *method || (self.method == Method::GET && *method == Method::HEAD)
    }
}

impl RouteKind {
    fn is_in(self, routes: RouteSet) -> bool {
        match routes {
            RouteSet::All => true,
            RouteSet::Public => self != Self::Metrics,
            RouteSet::Api => self == Self::Api,
            RouteSet::Metrics => self != Self::Api,
        }
    }
}

fn find<'a>(
    table: &'a [Route],
    routes: RouteSet,
    method: &Method,
    path: &str,
) -> Option<&'a Route> {
    let mut of_path = table.iter().filter(|row| row.kind.is_in(routes) && row.matches(path));
    let first = of_path.next()?;
    if first.allows(method) {
        return Some(first);
    }
    Some(of_path.find(|row| row.allows(method)).unwrap_or(first))
}

/// Returns the value of the `Allow` header (RFC 9110 §10.2.1): the methods of a path's rows.
///
/// Without a path, the methods of the whole table.
fn allow(table: &[Route], path: Option<&str>) -> HeaderValue {
    let mut methods = Vec::new();
    for row in table.iter().filter(|row| path.is_none_or(|path| path == row.path)) {
        let head = (row.method == Method::GET).then_some("HEAD");
        for method in std::iter::once(row.method.as_str()).chain(head) {
            if !methods.contains(&method) {
                methods.push(method);
            }
        }
    }
    methods.push("OPTIONS");
    // The names of methods are tokens, which are valid in a header.
    HeaderValue::try_from(methods.join(", "))
        .unwrap_or_else(|_| HeaderValue::from_static("OPTIONS"))
}

/// Calls the endpoint of the route.
pub(super) async fn dispatch(
    route: Option<&'static Route>,
    call: Call<'_>,
) -> Result<Answer, ApiError> {
    let method = call.request.method();
    if method == Method::OPTIONS && call.request.uri().path() == "*" {
        return Ok(Answer::options(allow(ROUTES, None)));
    }
    let route = route.ok_or(ApiError::NotFound)?;
    if method == Method::OPTIONS {
        return Ok(Answer::options(allow(ROUTES, Some(route.path))));
    }
    if !route.allows(method) {
        return Err(ApiError::MethodNotAllowed { allow: allow(ROUTES, Some(route.path)) });
    }
    (route.endpoint)(call).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(routes: RouteSet, path: &str) -> Option<&'static Route> {
        Route::find(routes, &Method::GET, path)
    }

    // Reliability: A14.
    #[test]
    fn only_exact_paths_are_routes() {
        assert!(get(RouteSet::All, "/health/liveness").is_some());
        for path in [
            "/health/liveness/",
            "/health//liveness",
            "/health/%6Civeness",
            "/health/../metrics",
            "/Metrics",
            "",
        ] {
            assert!(get(RouteSet::All, path).is_none(), "{path}");
        }
    }

    #[test]
    fn only_the_canonical_form_of_a_session_id_is_a_route() {
        let id = "3f2b8c1e-7a4d-4e9b-9c55-0123456789ab";
        let path = format!("/api/v1/auth/sessions/{id}");
        let route = get(RouteSet::All, &path).unwrap();
        assert_eq!(route.path, "/api/v1/auth/sessions/{id}");
        assert_eq!(route.session_in(&path).unwrap().to_string(), id);
        for end in ["", "{id}", "1", &id.to_uppercase(), &id.replace('-', ""), &format!("{id}/")] {
            let path = format!("/api/v1/auth/sessions/{end}");
            assert!(get(RouteSet::All, &path).is_none(), "{path}");
        }
        assert!(get(RouteSet::Metrics, &path).is_none());
    }

    // Reliability: F11.
    #[test]
    fn metrics_and_health_can_be_left_out_of_the_public_listener() {
        assert!(get(RouteSet::Public, "/metrics").is_none());
        assert!(get(RouteSet::Public, "/health/liveness").is_some());
        assert!(get(RouteSet::Metrics, "/api/v1/auth/token").is_none());
        for path in ["/health/liveness", "/health/readiness", "/metrics"] {
            assert!(get(RouteSet::Api, path).is_none(), "{path}");
            assert!(get(RouteSet::Metrics, path).is_some(), "{path}");
        }
        assert!(get(RouteSet::Api, "/api/v1/auth/token").is_some());
    }

    #[test]
    fn routes_are_unique_and_only_health_and_metrics_are_exempt() {
        let mut keys: Vec<_> = ROUTES.iter().map(|row| (row.path, row.method.as_str())).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), ROUTES.len());
        for route in ROUTES {
            let exempt = Route::limits(Some(route)).is_empty();
            assert_eq!(exempt, route.is_probe(), "{}", route.path);
        }
        assert_eq!(Route::limits(None), &[Policy::Global]);
    }

    #[test]
    fn rows_of_one_path_have_their_own_limits_and_a_common_allow_value() {
        const TABLE: &[Route] = routes! {
            Api DELETE "/both",  LOGIN,   api::logout_all::answer;
            Api POST   "/other", REFRESH, api::refresh::answer;
            Api GET    "/both",  GLOBAL,  api::me::answer;
        };
        let limits = |method| find(TABLE, RouteSet::All, &method, "/both").unwrap().limits;
        assert_eq!(limits(Method::DELETE), LOGIN);
        assert_eq!(limits(Method::GET), GLOBAL);
        assert_eq!(limits(Method::HEAD), GLOBAL);
        assert_eq!(limits(Method::OPTIONS), LOGIN, "no row has OPTIONS, so the first one counts");
        let post = find(TABLE, RouteSet::All, &Method::POST, "/both").unwrap();
        assert!(!post.allows(&Method::POST), "{}", post.path);
        assert_eq!(allow(TABLE, Some("/both")), "DELETE, GET, HEAD, OPTIONS");
        assert_eq!(allow(TABLE, Some("/other")), "POST, OPTIONS");
        assert_eq!(allow(TABLE, None), "DELETE, POST, GET, HEAD, OPTIONS");
    }
}
