//! Trace export to an OpenTelemetry collector, by OTLP over HTTP with protobuf.
//!
//! Export is off unless an endpoint is set. When a request ends, its notes ([`Notes`]) become a server
//! span and a child span for each stage. The spans wait in the SDK's bounded queue
//! (`OTEL_BSP_MAX_QUEUE_SIZE`, 2,048 spans), from which the SDK's thread sends batches. A full queue
//! drops spans. The SDK reads sampling, resource, headers, timeouts and batching from the standard
//! `OTEL_*` variables.

use super::trace::{Notes, Span};
use super::trace_context::{Caller, TraceContext};
use super::{Family, Metrics, definitions, with_causes};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, Response};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use opentelemetry::trace::{
    Link, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchSpanProcessor, Config, IdGenerator, RandomIdGenerator, SamplingDecision, SpanData,
    SpanLinks, SpanProcessor,
};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::runtime::Handle;

/// The variable with the full endpoint of traces. The exporter reads it itself.
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
/// Longest answer of a collector. Unit: bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Longest wait for the last batch when the server stops.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

type Error = Box<dyn std::error::Error + Send + Sync>;

/// The trace exporter; the default exports nothing. Cheap to clone.
#[derive(Clone, Default)]
pub struct Traces(Option<Arc<Inner>>);

struct Inner {
    processor: BatchSpanProcessor,
    config: Config,
    ids: RandomIdGenerator,
    scope: InstrumentationScope,
}

/// A request whose trace is exported.
#[derive(Clone, Copy, Debug)]
pub struct Sampled(SpanId);

/// Data of a request for its server span (OpenTelemetry's semantic conventions for HTTP).
#[derive(Clone, Copy, Debug)]
pub struct Served<'a> {
    /// The method as in metrics.
    pub method: &'static str,
    /// The route's template.
    pub route: &'static str,
    /// The response's status; `None`: the client disconnected first.
    pub status: Option<u16>,
    /// The request id.
    pub request_id: &'a str,
    /// The client's address.
    pub client: IpAddr,
    /// When the request began.
    pub begun: Instant,
    /// When the request ended.
    pub ended: Instant,
    /// The wall clock at the end.
    pub ended_at: SystemTime,
}

impl Traces {
    /// Creates an exporter to the collector at a base URL (`http://127.0.0.1:4318`).
    ///
    /// It does not connect yet. An unreachable collector loses traces, but does not prevent the start.
    ///
    /// # Errors
    /// When the URL, a certificate store or an `OTEL_*` variable is invalid.
    pub fn open(endpoint: &str, metrics: &Metrics) -> Result<Self, Error> {
        let https = hyper_rustls::HttpsConnectorBuilder::new()
            .with_native_roots()?
            .https_or_http()
            .enable_http1()
            .build();
        let client = Collector {
            client: Client::builder(TokioExecutor::new()).build(https),
            runtime: Handle::current(),
            exports: Arc::new(metrics.family(definitions::TRACE_EXPORTS)),
        };
        let mut exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_protocol(Protocol::HttpBinary);
        if std::env::var_os(TRACES_ENDPOINT).is_none() {
            let url = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
            exporter = exporter.with_endpoint(url);
        }
        let mut processor = BatchSpanProcessor::builder(exporter.build()?).build();
        processor.set_resource(&resource());
        let scope = InstrumentationScope::builder("staunch")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        let (config, ids) = (Config::default(), RandomIdGenerator::default());
        Ok(Self(Some(Arc::new(Inner { processor, config, ids, scope }))))
    }

    /// Decides whether to export the request's trace, by `OTEL_TRACES_SAMPLER`.
    ///
    /// By default a trace is exported if its parent is, or if it has no parent.
    pub fn sample(&self, context: &TraceContext, route: &str) -> Option<Sampled> {
        let inner = self.0.as_ref()?;
        let trace_id = TraceId::from(context.trace_id.0);
        let parent =
            context.parent().map(|parent| Context::new().with_remote_span_context(remote(parent)));
        let sampler = &inner.config.sampler;
        let result =
            sampler.should_sample(parent.as_ref(), trace_id, route, &SpanKind::Server, &[], &[]);
        let taken = result.decision == SamplingDecision::RecordAndSample;
        taken.then(|| Sampled(inner.ids.new_span_id()))
    }

    /// Queues the spans of a request for export. Never blocks.
    pub fn export(
        &self,
        sampled: Sampled,
        context: &TraceContext,
        notes: &Notes,
        served: &Served<'_>,
    ) {
        let Some(inner) = self.0.as_ref() else { return };
        let trace_id = TraceId::from(context.trace_id.0);
        let at = |time: Instant| {
            let ago = served.ended.saturating_duration_since(time);
            served.ended_at.checked_sub(ago).unwrap_or(served.ended_at)
        };
        let parent = context.parent();
        let state = parent.map_or(TraceState::NONE, tracestate);
        let span = |id, parent: SpanId, kind, name: String, times: (Instant, Instant)| SpanData {
            span_context: SpanContext::new(trace_id, id, TraceFlags::SAMPLED, false, state.clone()),
            parent_span_id: parent,
            parent_span_is_remote: false,
            span_kind: kind,
            name: name.into(),
            start_time: at(times.0),
            end_time: at(times.1),
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: Default::default(),
            links: Default::default(),
            status: Status::Unset,
            instrumentation_scope: inner.scope.clone(),
        };
        for &Span { stage, detail, begun, ended } in &notes.spans {
            let id = inner.ids.new_span_id();
            let system = stage.database_system();
            let kind = if system.is_some() { SpanKind::Client } else { SpanKind::Internal };
            let name = match detail {
                Some(detail) => format!("{} {detail}", stage.label()),
                None => stage.label().to_owned(),
            };
            let mut child = span(id, sampled.0, kind, name, (begun, ended));
            if let (Some(system), Some(summary)) = (system, detail) {
                child.attributes = vec![
                    KeyValue::new("db.system.name", system),
                    KeyValue::new("db.query.summary", summary),
                ];
            }
            inner.processor.on_end(child);
        }
        let above = parent.map_or(SpanId::INVALID, |parent| SpanId::from(parent.span_id));
        let name = format!("{} {}", served.method, served.route);
        let mut links = SpanLinks::default();
        links.links.extend(context.link().map(|caller| Link::with_context(remote(caller))));
        let root = SpanData {
            parent_span_is_remote: parent.is_some(),
            links,
            attributes: attributes(notes, served),
            status: status(notes, served),
            ..span(sampled.0, above, SpanKind::Server, name, (served.begun, served.ended))
        };
        inner.processor.on_end(root);
    }

    /// Sends the queued spans, within 2 s, and closes the exporter.
    pub async fn close(self) {
        let Some(inner) = self.0 else { return };
        let (done, closed) = tokio::sync::oneshot::channel();
        // On its own thread, because the SDK blocks while the async runtime sends for it.
        let closing = std::thread::Builder::new().name("staunch-traces".into()).spawn(move || {
            let result = inner.processor.shutdown_with_timeout(FLUSH_TIMEOUT);
            done.send(result).ok();
        });
        let result = match closing {
            Ok(_) => closed.await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) | Ok(Err(error)) = result.map(|sent| sent.map_err(|e| e.to_string())) {
            tracing::warn!(error, "cannot send the last traces");
        }
    }
}

impl Sampled {
    /// The `traceresponse` header, which names the request's server span.
    ///
    /// Source: W3C Trace Context, level 3 draft.
    pub fn traceresponse(self, context: &TraceContext) -> String {
        format!("00-{}-{}-01", context.trace_id, self.0)
    }
}

/// The resource of the spans: `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME`, else staunch.
fn resource() -> Resource {
    let given = Resource::builder().build();
    let name = opentelemetry::Key::from_static_str("service.name");
    let named =
        given.get(&name).is_some_and(|value| !value.as_str().starts_with("unknown_service"));
    let mut resource = Resource::builder()
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    if !named {
        resource = resource.with_service_name("staunch");
    }
    resource.build()
}

fn remote(caller: &Caller) -> SpanContext {
    let flags = if caller.sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
    let (trace, span) = (TraceId::from(caller.trace_id.0), SpanId::from(caller.span_id));
    SpanContext::new(trace, span, flags, true, tracestate(caller))
}

fn tracestate(caller: &Caller) -> TraceState {
    caller.tracestate.parse().unwrap_or(TraceState::NONE)
}

fn attributes(notes: &Notes, served: &Served<'_>) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new("http.request.method", served.method),
        KeyValue::new("http.route", served.route),
        KeyValue::new("client.address", served.client.to_string()),
        KeyValue::new("staunch.request_id", served.request_id.to_owned()),
    ];
    if let Some(status) = served.status {
        attributes.push(KeyValue::new("http.response.status_code", i64::from(status)));
    }
    if let Some(session) = notes.session {
        attributes.push(KeyValue::new("session.id", uuid::Uuid::from_u128(session).to_string()));
    }
    attributes
}

fn status(notes: &Notes, served: &Served<'_>) -> Status {
    match served.status {
        Some(500..) => Status::error(notes.failure.clone().unwrap_or_default()),
        Some(_) => Status::Unset,
        None => Status::error("the client left"),
    }
}

/// The HTTP client of the exporter.
///
/// The SDK's thread calls it and blocks; the async runtime sends the request.
#[derive(Clone)]
struct Collector {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    runtime: Handle,
    exports: Arc<Family>,
}

impl std::fmt::Debug for Collector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collector").finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl opentelemetry_http::HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Error> {
        let client = self.client.clone();
        let sending = self.runtime.spawn(async move {
            let response = client.request(request.map(Full::new)).await?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?.to_bytes();
            Ok::<_, Error>(Response::from_parts(head, body))
        });
        let result = sending.await.unwrap_or_else(|error| Err(error.into()));
        let sent = result.as_ref().is_ok_and(|response| response.status().is_success());
        self.exports.increment(if sent { "success" } else { "error" });
        match &result {
            Err(error) => {
                tracing::debug!(error = with_causes(error.as_ref()), "cannot send traces");
            }
            Ok(response) if !sent => {
                tracing::debug!(
                    status = response.status().as_u16(),
                    "the collector refused traces"
                );
            }
            Ok(_) => {}
        }
        result
    }
}
