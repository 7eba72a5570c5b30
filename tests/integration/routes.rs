//! Which paths and methods are served.

use crate::support::{Reply, TestApp, contract};
use hyper::Method;
use std::collections::{BTreeMap, BTreeSet};

// Reliability: A14.
#[tokio::test]
async fn only_exact_paths_are_routes_and_others_are_404() {
    let app = TestApp::start().await;
    for path in [
        "/",
        "/nowhere",
        "/health",
        "/health/liveness/",
        "/health//liveness",
        "//health/liveness",
        "/health/%6civeness",
        "/health/liveness%2F",
        "/health/../metrics",
        "/HEALTH/liveness",
        "/api/v1/auth/token;x=1",
        "/api/v1/auth",
    ] {
        let reply = app.anonymous().get(path).await;
        reply.assert_problem(404, "not-found");
    }
    let query = app.anonymous().get("/health/liveness?x=1").await;
    query.assert_status(200);
}

// Reliability: A14.
#[tokio::test]
async fn other_methods_are_405_with_allow() {
    let app = TestApp::start().await;
    let mut documented = BTreeMap::<_, BTreeSet<String>>::new();
    for (method, path) in contract::operations() {
        let methods = documented.entry(path).or_insert_with(|| ["OPTIONS".to_owned()].into());
        methods.extend((method == "GET").then(|| "HEAD".to_owned()));
        methods.insert(method);
    }
    for (path, methods) in documented {
        let allow = |reply: &Reply| -> BTreeSet<String> {
            reply.header("allow").unwrap().split(", ").map(str::to_owned).collect()
        };
        let path = &path.replace("{id}", "3f2b8c1e-7a4d-4e9b-9c55-0123456789ab");
        for method in ["GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "TRACE", "BREW"] {
            if methods.contains(method) {
                continue;
            }
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let reply = app.anonymous().send(method.clone(), path, None, "").await;
            if method == Method::HEAD {
                reply.assert_status(405);
            } else {
                reply.assert_problem(405, "method-not-allowed");
            }
            assert_eq!(allow(&reply), methods, "{path}");
        }
        let options = app.anonymous();
        let options = options.send(Method::OPTIONS, path, None, "").await;
        options.assert_status(204);
        assert_eq!(allow(&options), methods, "{path}");
    }
    let lost = app.anonymous();
    let lost = lost.send(Method::OPTIONS, "/nowhere", None, "").await;
    lost.assert_status(404);
}

// Reliability: A14.
#[tokio::test]
async fn head_is_get_without_the_body() {
    let app = TestApp::start().await;
    let client = app.anonymous();
    for path in ["/health/liveness", "/health/readiness", "/nowhere"] {
        let get = client.get(path).await;
        let head = client.send(Method::HEAD, path, None, "").await;
        assert_eq!(head.status, get.status);
        assert_eq!(head.text(), "");
        for name in ["content-type", "content-length", "cache-control"] {
            assert_eq!(head.header(name), get.header(name), "{path}: {name}");
        }
    }
    let post = client.send(Method::HEAD, "/api/v1/auth/token", None, "").await;
    post.assert_status(405);
    // No bytes of a body remain on the connection.
    let mut raw = app.raw().await;
    let last = "GET /health/liveness HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    raw.write(format!("HEAD /health/liveness HTTP/1.1\r\nHost: x\r\n\r\n{last}")).await;
    let all = raw.rest().await;
    assert_eq!(all.matches("HTTP/1.1 200 OK").count(), 2, "{all}");
    assert_eq!(all.matches(r#"{"status":"alive"}"#).count(), 1, "{all}");
}

// Reliability: A14.
#[tokio::test]
async fn options_asterisk_lists_all_methods() {
    let app = TestApp::start().await;
    let mut raw = app.raw().await;
    raw.write("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let reply = raw.reply().await.unwrap();
    assert_eq!(reply.status, 204);
    let head = reply.head.to_lowercase();
    assert!(head.contains("allow: post, get, head, delete, options"), "{head}");
}
