//! Traces: which requests are exported, and what the spans contain.

use crate::support::{Builder, Collector, PASSWORD, SOON, TestApp, attributes, until};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A server that trusts the `traceparent` of loopback callers.
async fn traced(collector: &Collector) -> TestApp {
    exporting(collector).set("STAUNCH_TRACE_CALLERS", "127.0.0.1").start().await
}

fn exporting(collector: &Collector) -> Builder {
    TestApp::builder().system_clock().set("STAUNCH_OTLP_ENDPOINT", collector.url())
}

// Several threads, because the collector must answer while the test waits for the server to stop.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_is_one_tree_of_stage_spans_under_the_callers_span() {
    let collector = Collector::start().await;
    let app = traced(&collector).await;
    // No hexadecimal id can contain this name.
    let name = "margaret";
    app.register(name).await;
    let client = app
        .anonymous()
        .with("traceparent", &format!("00-{TRACE}-{CALLER}-01"))
        .with("tracestate", "rojo=00f067aa0ba902b7")
        .with("x-request-id", "login-1");
    let reply = client.login(name, PASSWORD).await;
    let tokens = reply.tokens();
    let traceresponse = reply.header("traceresponse").unwrap().to_owned();
    // The server exports waiting spans when it stops.
    drop(app);

    let received = collector.take();
    assert_eq!(received.resource["service.name"], "staunch");
    assert_eq!(received.resource["service.version"], env!("CARGO_PKG_VERSION"));
    let login: Vec<Span> =
        received.spans.into_iter().filter(|span| hex(&span.trace_id) == TRACE).collect();
    let root = login.iter().find(|span| hex(&span.parent_span_id) == CALLER).unwrap();
    assert_eq!(root.name, "POST /api/v1/auth/token");
    assert_eq!(root.kind(), SpanKind::Server);
    assert_eq!(root.trace_state, "rojo=00f067aa0ba902b7");
    assert_eq!(traceresponse, format!("00-{TRACE}-{}-01", hex(&root.span_id)));
    let about = attributes(&root.attributes);
    assert_eq!(about["http.request.method"], "POST");
    assert_eq!(about["http.route"], "/api/v1/auth/token");
    assert_eq!(about["http.response.status_code"], "200");
    assert_eq!(about["client.address"], "127.0.0.1");
    assert_eq!(about["staunch.request_id"], "login-1");
    assert_eq!(about["session.id"].len(), 36);

    let stages: Vec<&Span> = login.iter().filter(|span| span.span_id != root.span_id).collect();
    let mut names: Vec<&str> = stages.iter().map(|span| span.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "body",
            "hash",
            "hash_wait",
            "limit",
            "pool_wait",
            "pool_wait",
            "query credentials_by_username",
            "query insert_session",
            "sign",
        ]
    );
    for span in &stages {
        assert_eq!(span.parent_span_id, root.span_id, "{}", span.name);
        let within = root.start_time_unix_nano <= span.start_time_unix_nano
            && span.start_time_unix_nano <= span.end_time_unix_nano
            && span.end_time_unix_nano <= root.end_time_unix_nano;
        assert!(within, "{span:?} of {root:?}");
    }
    let query = stages.iter().find(|span| span.name == "query insert_session").unwrap();
    assert_eq!(query.kind(), SpanKind::Client);
    assert_eq!(attributes(&query.attributes)["db.system.name"], "postgresql");

    let all = format!("{login:?}");
    for secret in [PASSWORD, name, &tokens.access, &tokens.refresh] {
        assert!(!all.contains(secret), "{secret}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trusted_caller_decides_sampling_and_otherwise_the_request_id_is_the_trace() {
    let collector = Collector::start().await;
    let app = traced(&collector).await;
    let client = app.anonymous();
    let unsampled = client.with("traceparent", &format!("00-{TRACE}-{CALLER}-00"));
    let reply = unsampled.get("/health/liveness").await;
    assert_eq!(reply.header("traceresponse"), None);
    assert_eq!(reply.header("x-request-id"), Some(TRACE));
    let reply = client.get("/no/such/path").await;
    assert_eq!(reply.header("traceresponse"), None, "not requested");
    let id = reply.header("x-request-id").unwrap().to_owned();
    drop(app);

    let spans = collector.take().spans;
    assert!(spans.iter().all(|span| hex(&span.trace_id) != TRACE));
    let root = spans.iter().find(|span| span.name == "GET unmatched").unwrap();
    assert_eq!(hex(&root.trace_id), id);
    assert!(root.parent_span_id.is_empty(), "{root:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_untrusted_trace_is_linked_and_its_sampling_flag_ignored() {
    let collector = Collector::start().await;
    let app = exporting(&collector).start().await;
    // The caller's flag says not sampled. The sampler records every root and ignores the flag.
    let stranger = app.anonymous().with("traceparent", &format!("00-{TRACE}-{CALLER}-00"));
    let reply = stranger.get("/health/liveness").await;
    let response = reply.header("traceresponse").unwrap().to_owned();
    let id = reply.header("x-request-id").unwrap().to_owned();
    assert!(id != TRACE && response.starts_with(&format!("00-{id}-")), "{response}");
    drop(app);

    let spans = collector.take().spans;
    assert!(spans.iter().all(|span| hex(&span.trace_id) != TRACE), "{spans:?}");
    let is_root = |span: &&Span| hex(&span.trace_id) == id && span.parent_span_id.is_empty();
    let root = spans.iter().find(is_root).unwrap();
    let link = &root.links[0];
    assert_eq!((hex(&link.trace_id), hex(&link.span_id)), (TRACE.into(), CALLER.into()));
}

#[tokio::test]
async fn an_unreachable_collector_loses_only_traces() {
    // A port without a listener.
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let url = format!("http://{gone}");
    let app = TestApp::builder().set("STAUNCH_OTLP_ENDPOINT", url).start().await;
    let tokens = app.registered("ada").await;
    app.anonymous().me(&tokens.access).await.assert_status(200);
    until("a batch failed", SOON, async || {
        app.metric(r#"staunch_trace_exports_total{result="error"}"#).await >= 1.0
    })
    .await;
    drop(app);
}
