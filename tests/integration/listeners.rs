//! The separate listener for metrics and health.

use crate::support::{Client, Raw, TestApp};

// Reliability: F11.
#[tokio::test]
async fn metrics_can_have_a_separate_listener() {
    let app = TestApp::builder().set("STAUNCH_METRICS_LISTEN", "127.0.0.1:0").start().await;
    let mut raw = app.raw().await;
    raw.write("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(raw.reply().await.unwrap().status, 404);
    let apart = Client::new(app.metrics_address.unwrap());
    let page = apart.get("/metrics").await;
    page.assert_status(200);
    assert!(page.text().contains("staunch_build_info"));
    apart.get("/health/readiness").await.assert_status(200);
    // Not with `Client`, which checks that this path is a route.
    let mut raw = Raw::connect(app.metrics_address.unwrap()).await;
    raw.write("POST /api/v1/auth/token HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(raw.reply().await.unwrap().status, 404);
}

// Reliability: F11.
#[tokio::test]
async fn health_can_be_removed_from_the_main_listener() {
    let app = TestApp::builder()
        .set("STAUNCH_METRICS_LISTEN", "127.0.0.1:0")
        .set("STAUNCH_PUBLIC_HEALTH", "off")
        .start()
        .await;
    for path in ["/health/liveness", "/health/readiness", "/metrics"] {
        // Not with `Client`, which checks that these paths are routes.
        let mut raw = app.raw().await;
        raw.write(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        assert_eq!(raw.reply().await.unwrap().status, 404, "{path}");
        Client::new(app.metrics_address.unwrap()).get(path).await.assert_status(200);
    }
    app.anonymous().get("/openapi.json").await.assert_status(200);
}
