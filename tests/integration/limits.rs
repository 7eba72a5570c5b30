//! Rate limits of the HTTP API.

use crate::introspect::{INTROSPECT, REVOKE};
use crate::support::{PASSWORD, Reply, TestApp, raw_login};
use hyper::Method;
use std::time::Duration;

/// Sends until a request is refused; returns how many were allowed.
async fn allowed(times_max: usize, mut send: impl AsyncFnMut() -> Reply) -> usize {
    for n in 0..times_max {
        if send().await.status == 429 {
            return n;
        }
    }
    times_max
}

#[tokio::test]
async fn each_policy_has_its_own_bucket_of_the_configured_size() {
    let app = TestApp::builder()
        .set("STAUNCH_LIMIT_REGISTER", "2/min")
        .set("STAUNCH_LIMIT_LOGIN", "3/min")
        .set("STAUNCH_LIMIT_REFRESH", "4/min")
        .set("STAUNCH_LIMIT_GLOBAL", "100/min")
        .start()
        .await;
    let client = app.anonymous();
    let registers = allowed(9, async || client.register("x", "x", "x").await).await;
    assert_eq!(registers, 2);
    let logins = allowed(9, async || client.login("nobody", "x").await).await;
    assert_eq!(logins, 3);
    let refreshes = allowed(9, async || client.refresh("x").await).await;
    assert_eq!(refreshes, 4);
    for policy in ["register", "login", "refresh"] {
        let series = format!("staunch_rate_limited_total{{policy=\"{policy}\"}}");
        assert_eq!(app.metric(&series).await, 1.0, "{policy}");
    }
    client.logout("x").await.assert_status(204);

    // The login bucket refills one token every 20 s.
    app.clock.advance(Duration::from_millis(19_999));
    client.login("nobody", "x").await.assert_status(429);
    app.clock.advance(Duration::from_millis(1));
    client.login("nobody", "x").await.assert_status(401);
    client.login("nobody", "x").await.assert_status(429);
}

#[tokio::test]
async fn the_default_limits_are_the_documented_ones() {
    let mut builder = TestApp::builder().set("STAUNCH_TRUSTED_PROXIES", "127.0.0.0/8");
    for (variable, default) in [
        ("STAUNCH_LIMIT_REGISTER", "5/min"),
        ("STAUNCH_LIMIT_LOGIN", "10/min"),
        ("STAUNCH_LIMIT_REFRESH", "20/min"),
        ("STAUNCH_LIMIT_CLIENTS", "600/s"),
        ("STAUNCH_LIMIT_GLOBAL", "200/min"),
    ] {
        let setting =
            staunch::config::SETTINGS.iter().find(|setting| setting.variable == variable).unwrap();
        assert_eq!(setting.default, default);
        builder = builder.set(variable, default);
    }
    let app = builder.start().await;
    let client = app.anonymous().from("203.0.113.1");
    assert_eq!(allowed(30, async || client.register("x", "x", "x").await).await, 5);
    // With a new name each time, because five failures lock a name.
    let mut names = 0..;
    let mut name = || format!("no-{}", names.next().unwrap_or(0));
    assert_eq!(allowed(30, async || client.login(&name(), "x").await).await, 10);
    assert_eq!(allowed(30, async || client.refresh("x").await).await, 20);
    let client = app.anonymous().from("203.0.113.2");
    assert_eq!(allowed(300, async || client.logout("x").await).await, 200);
}

#[tokio::test]
async fn clients_have_a_separate_limit_and_do_not_use_the_global_one() {
    let app = TestApp::builder()
        .set("STAUNCH_LIMIT_CLIENTS", "3/min")
        .set("STAUNCH_LIMIT_GLOBAL", "2/min")
        .start()
        .await;
    let client = app.anonymous();
    let ask = async |path| client.post_form(path, &[("token", "x")]).await;
    assert_eq!(allowed(9, async || ask(INTROSPECT).await).await, 3, "limited: not a client");
    let refused = ask(REVOKE).await;
    refused.assert_problem(429, "rate-limited");
    assert!(refused.header("ratelimit").unwrap().starts_with(r#""clients";r=0"#));
    assert_eq!(allowed(9, async || client.logout("x").await).await, 2);
    app.clock.advance(Duration::from_secs(20));
    ask(REVOKE).await.assert_problem(401, "client-rejected");
}

#[tokio::test]
async fn a_refusal_says_when_to_retry() {
    let app = TestApp::builder()
        .set("STAUNCH_LIMIT_LOGIN", "2/min")
        .set("STAUNCH_LIMIT_GLOBAL", "100/min")
        .start()
        .await;
    let client = app.anonymous();
    let policy = Some(r#""login";q=2;w=60, "global";q=100;w=60"#);
    let first = client.login("nobody", "x").await;
    assert_eq!(first.header("ratelimit"), Some(r#""login";r=1;t=30"#));
    assert_eq!(first.header("ratelimit-policy"), policy);
    client.login("nobody", "x").await.assert_status(401);
    app.clock.advance(Duration::from_millis(3_500));
    let refused = client.login("nobody", "x").await;
    refused.assert_problem(429, "rate-limited");
    assert_eq!(refused.header("retry-after"), Some("27"));
    assert_eq!(refused.header("ratelimit"), Some(r#""login";r=0;t=27"#));
    assert_eq!(refused.header("ratelimit-policy"), policy);
    app.clock.advance(Duration::from_secs(27));
    client.login("nobody", "x").await.assert_status(401);
    // Routes without their own limit use the global one, and so do unknown paths.
    for path in ["/api/v1/auth/me", "/nowhere"] {
        let reply = client.get(path).await;
        assert!(reply.header("ratelimit").unwrap().starts_with(r#""global";r=9"#));
        assert_eq!(reply.header("ratelimit-policy"), Some(r#""global";q=100;w=60"#));
    }
}

#[tokio::test]
async fn a_limit_with_two_windows_enforces_both() {
    let app = TestApp::builder()
        .set("STAUNCH_LIMIT_LOGIN", "3/min,5/h")
        .set("STAUNCH_LIMIT_GLOBAL", "6/min")
        .start()
        .await;
    let client = app.anonymous();
    let policy = Some(r#""login";q=3;w=60, "login-h";q=5;w=3600, "global";q=6;w=60"#);
    let mut names = 0..;
    let mut login = async || client.login(&format!("no-{}", names.next().unwrap()), "x").await;
    assert_eq!(allowed(9, &mut login).await, 3);
    app.clock.advance(Duration::from_secs(60));
    assert_eq!(allowed(9, &mut login).await, 2, "two of the hourly limit remain");
    let refused = login().await;
    assert_eq!(refused.header("retry-after"), Some("660"));
    assert_eq!(refused.header("ratelimit"), Some(r#""login-h";r=0;t=660"#));
    assert_eq!(refused.header("ratelimit-policy"), policy);
    assert_eq!(app.metric(r#"staunch_rate_limited_total{policy="login"}"#).await, 3.0);
    // Refused requests do not use the global limit.
    assert_eq!(allowed(9, async || client.logout("x").await).await, 4);
}

// Reliability: B4.
#[tokio::test]
async fn a_refusal_costs_no_query_no_hash_and_no_body() {
    let app = TestApp::builder().set("STAUNCH_LIMIT_LOGIN", "1/min").start().await;
    app.register("ada").await;
    let client = app.anonymous();
    client.log_in("ada").await;
    let (queries, hashes) =
        (app.all_queries().await, app.metric("staunch_hash_seconds_count{op=\"verify\"}").await);
    for _ in 0..20 {
        client.login("ada", PASSWORD).await.assert_status(429);
    }
    assert_eq!(app.all_queries().await, queries);
    let after = app.metric("staunch_hash_seconds_count{op=\"verify\"}").await;
    assert_eq!(after, hashes);
    // Answered although the body never arrives.
    let mut raw = app.raw().await;
    raw.write(
        "POST /api/v1/auth/token HTTP/1.1\r\nHost: x\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\n",
    )
    .await;
    assert_eq!(raw.reply().await.unwrap().status, 429);
}

// A client that has to reconnect costs the server several refusals.
#[tokio::test]
async fn a_refused_login_keeps_its_connection() {
    let app = TestApp::builder().set("STAUNCH_LIMIT_LOGIN", "1/min").start().await;
    let mut raw = app.raw().await;
    for status in std::iter::once(401).chain([429; 20]) {
        raw.write(raw_login("nobody")).await;
        let reply = raw.reply().await.expect("the connection is open");
        assert_eq!(reply.status, status);
        assert!(!reply.head.contains("connection:"), "{}", reply.head);
    }
}

// Reliability: F3.
#[tokio::test]
async fn addresses_are_limited_separately_and_only_trusted_proxies_may_forward_them() {
    let app = TestApp::builder()
        .set("STAUNCH_LIMIT_LOGIN", "2/min")
        .set("STAUNCH_TRUSTED_PROXIES", "127.0.0.1,10.0.0.0/8")
        .start()
        .await;
    let spend = async |chain: &str| {
        let client = app.anonymous().from(chain);
        allowed(5, async || client.login("nobody", "x").await).await
    };
    assert_eq!(spend("203.0.113.1").await, 2);
    assert_eq!(spend("203.0.113.2").await, 2);
    // Entries that the client itself wrote stand to the left and are ignored.
    assert_eq!(spend("198.51.100.1, 203.0.113.2").await, 0);
    assert_eq!(spend("198.51.100.2, 203.0.113.2, 10.1.2.3").await, 0);
    assert_eq!(spend("::ffff:203.0.113.1").await, 0, "the same address");
    assert_eq!(spend("203.0.113.1:4711").await, 0, "the same address");

    let untrusting = TestApp::builder().set("STAUNCH_LIMIT_LOGIN", "2/min").start().await;
    let mut through = 0;
    for n in 0..5 {
        let client = untrusting.anonymous().from(&format!("203.0.113.{n}"));
        through += usize::from(client.login("nobody", "x").await.status != 429);
    }
    assert_eq!(through, 2);
}

// Reliability: F4.
#[tokio::test]
async fn an_ipv6_client_is_limited_by_its_64_bit_prefix() {
    let app = TestApp::builder()
        .set("STAUNCH_LIMIT_LOGIN", "2/min")
        .set("STAUNCH_TRUSTED_PROXIES", "127.0.0.1")
        .start()
        .await;
    let login = async |address: &str| {
        let client = app.anonymous().from(address);
        client.login("nobody", "x").await.status
    };
    assert_eq!(login("2001:db8:0:1::1").await, 401);
    assert_eq!(login("2001:db8:0:1:ffff::2").await, 401);
    assert_eq!(login("2001:db8:0:1:1234:5678:9abc:def0").await, 429);
    assert_eq!(login("2001:db8:0:2::1").await, 401, "the next network");
    assert_eq!(app.metric("staunch_rate_limit_keys").await, 2.0);
}

/// Case F7 of the field list: a /56 has 256 networks and a /48 has 65,536, but fewer quotas.
// Reliability: F4.
#[tokio::test]
async fn an_ipv6_site_has_a_small_multiple_of_the_quota() {
    let app = TestApp::builder()
        .set("STAUNCH_LIMIT_LOGIN", "10/min")
        .set("STAUNCH_LIMIT_REGISTER", "5/min")
        .set("STAUNCH_LIMIT_GLOBAL", "200/min")
        .set("STAUNCH_TRUSTED_PROXIES", "127.0.0.1")
        .start()
        .await;
    let mut names = 0..;
    // 256 networks send until refused, with a new name each time, because failures lock a name.
    let mut logins = async |network: fn(u32) -> String| {
        let mut through = 0;
        for n in 0..256 {
            let client = app.anonymous().from(&network(n));
            let mut login =
                async || client.login(&format!("no-{}", names.next().unwrap()), "x").await;
            through += allowed(20, &mut login).await;
        }
        through
    };
    assert_eq!(logins(|n| format!("2001:db8:0:{n:x}::1")).await, 40, "of one /56");
    assert_eq!(logins(|n| format!("2001:db8:1:{n:x}00::1")).await, 160, "of one /48");
    let registrations = async |network: fn(u32) -> String| {
        let mut through = 0;
        for n in 0..256 {
            let client = app.anonymous().from(&network(n));
            through += allowed(20, async || client.register("x", "x", "x").await).await;
        }
        through
    };
    assert_eq!(registrations(|n| format!("2001:db8:2:{n:x}::1")).await, 20, "of one /56");
    assert_eq!(registrations(|n| format!("2001:db8:3:{n:x}00::1")).await, 80, "of one /48");

    // The answer to a network without earlier requests describes the prefix that limits it.
    let refused = app.anonymous().from("2001:db8:0:fe::1").login("no", "x").await;
    refused.assert_problem(429, "rate-limited");
    assert_eq!(refused.header("retry-after"), Some("2"), "a token of a /56 takes 1.5 s");
    assert_eq!(refused.header("ratelimit"), Some(r#""login";r=0;t=2"#));
    let policy = Some(r#""login";q=10;w=60, "global";q=200;w=60"#);
    assert_eq!(refused.header("ratelimit-policy"), policy);
    // Neighbours and IPv4 clients are not limited.
    app.anonymous().from("2001:db8:0:100::1").login("no", "x").await.assert_status(401);
    app.anonymous().from("203.0.113.9").login("no", "x").await.assert_status(401);
    app.clock.advance(Duration::from_millis(1_500));
    app.anonymous().from("2001:db8:0:fe::1").login("no", "x").await.assert_status(401);
}

// Case F1 of the field list: anyone could ask about any number of ids, at one query each.
#[tokio::test]
async fn unknown_clients_count_towards_the_global_limit_and_clients_count_once() {
    let app = TestApp::builder()
        .set("STAUNCH_LIMIT_CLIENTS", "100/min")
        .set("STAUNCH_LIMIT_GLOBAL", "3/min")
        .start()
        .await;
    let service = app.oauth_client().await;
    let ask = async |id: &str, secret: &str| {
        let fields = [("client_id", id), ("client_secret", secret), ("token", "x")];
        app.anonymous().post_form(INTROSPECT, &fields).await
    };
    let id = service.id.to_string();
    for _ in 0..10 {
        let answered = ask(&id, service.secret.expose()).await;
        answered.assert_status(200);
        assert_eq!(answered.header("ratelimit-policy"), Some(r#""clients";q=100;w=60"#));
    }
    // The first of these requests has counted.
    ask(&id, "wrong").await.assert_problem(401, "client-rejected");
    ask("no id", "x").await.assert_problem(401, "client-rejected");
    let queries = app.queries("client_secret").await;
    for _ in 0..3 {
        let refused = ask(&uuid::Uuid::new_v4().to_string(), "x").await;
        refused.assert_problem(429, "rate-limited");
        assert!(refused.header("ratelimit").unwrap().starts_with(r#""global";r=0"#));
        let both = Some(r#""clients";q=100;w=60, "global";q=3;w=60"#);
        assert_eq!(refused.header("ratelimit-policy"), both);
    }
    assert_eq!(app.queries("client_secret").await, queries, "no query");
    ask(&id, service.secret.expose()).await.assert_status(200);
}

#[tokio::test]
async fn health_and_metrics_are_exempt_and_everything_else_counts() {
    let app = TestApp::builder().set("STAUNCH_LIMIT_GLOBAL", "3/min").start().await;
    let client = app.anonymous();
    for path in ["/health/liveness", "/health/readiness", "/metrics"] {
        for _ in 0..10 {
            let reply = client.get(path).await;
            reply.assert_status(200);
            assert_eq!(reply.header("ratelimit"), None);
        }
    }
    client.get("/nowhere").await.assert_status(404);
    client.get("/api/v1/auth/token").await.assert_status(405);
    let options = client.send(Method::OPTIONS, "/api/v1/auth/me", None, "").await;
    options.assert_status(204);
    client.get("/api/v1/auth/me").await.assert_problem(429, "rate-limited");
    client.get("/nowhere").await.assert_status(429);
    client.get("/health/readiness").await.assert_status(200);
}

#[tokio::test]
async fn both_grants_count_towards_the_login_limit() {
    let app = TestApp::builder().set("STAUNCH_LIMIT_LOGIN", "1/min").start().await;
    let client = app.anonymous();
    let fields = [("grant_type", "refresh_token"), ("refresh_token", "x")];
    let reply = client.post_form("/api/v1/auth/token", &fields).await;
    reply.assert_status(401);
    client.login("nobody", "x").await.assert_status(429);
}

// Reliability: E6.
#[tokio::test]
async fn concurrent_requests_never_exceed_the_bucket() {
    let app = TestApp::builder().set("STAUNCH_LIMIT_REFRESH", "25/min").start().await;
    let tasks: Vec<_> = (0..100)
        .map(|_| {
            let client = app.anonymous();
            tokio::spawn(async move { client.refresh("x").await.status })
        })
        .collect();
    let mut through = 0;
    for task in tasks {
        through += usize::from(task.await.unwrap() != 429);
    }
    assert_eq!(through, 25);
}
