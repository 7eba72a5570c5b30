//! Sampling of traces, with samplers set in the environment.

use crate::support::{Server, folder, until};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const REQUESTS: usize = 1_000;

/// A collector that refuses what it receives: its address, and the number of batches.
async fn collector() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let batches = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&batches);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            drop(stream);
        }
    });
    (url, batches)
}

/// Sends [`REQUESTS`] requests with the sampled flag, with trace ids that every ratio accepts.
async fn sampled_requests(server: &Server) {
    let mut stream = TcpStream::connect(&server.address).await.unwrap();
    let mut bytes = [0; 4_096];
    for n in 1..=REQUESTS {
        let request = format!(
            "GET /health/liveness HTTP/1.1\r\nHost: x\r\n\
             traceparent: 00-{n:032x}-{n:016x}-01\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        while !answer.ends_with(r#"{"status":"alive"}"#) {
            let count = stream.read(&mut bytes).await.unwrap();
            assert_ne!(count, 0, "cut off after {answer:?}");
            answer.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        }
    }
}

#[tokio::test]
async fn an_untrusted_caller_cannot_override_the_sampler() {
    // A ratio decides by the trace id, and always accepts small numbers.
    for (sampler, ratio) in [("parentbased_traceidratio", "0"), ("traceidratio", "1e-9")] {
        for (callers, exported) in [("none", false), ("127.0.0.1", true)] {
            let top = folder();
            let (url, batches) = collector().await;
            let settings = [
                ("STAUNCH_OTLP_ENDPOINT", url.as_str()),
                ("STAUNCH_TRACE_CALLERS", callers),
                ("OTEL_TRACES_SAMPLER", sampler),
                ("OTEL_TRACES_SAMPLER_ARG", ratio),
                ("OTEL_BSP_SCHEDULE_DELAY", "50"),
            ];
            let server = Server::start(top.path(), &settings).await;
            sampled_requests(&server).await;
            if exported {
                until("a batch arrives", async || batches.load(Ordering::Relaxed) > 0).await;
            }
            // The server exports waiting spans when it stops.
            server.stop().await;
            assert_eq!(batches.load(Ordering::Relaxed) > 0, exported, "{sampler}, {callers}");
        }
    }
}
