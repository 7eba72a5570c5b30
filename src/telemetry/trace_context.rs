//! W3C Trace Context: the distributed trace of a request.

use std::fmt;

/// Longest `tracestate` that is passed on, as the standard recommends (§3.3.1.5). Unit: bytes.
const TRACESTATE_BYTES_MAX: usize = 512;

/// The trace of one request (W3C Trace Context, level 1).
///
/// A trusted caller's trace is continued: its span is the [parent](Self::parent), and the sampler
/// follows its flag. An untrusted caller must not choose what is traced, neither by its flag nor by
/// an id that a ratio sampler selects. Its request begins a new trace, to which the caller's is
/// [linked](Self::link).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// Never zero.
    pub trace_id: TraceId,
    /// The caller's span, if it sent one.
    caller: Option<Caller>,
}

/// A trace id of 16 bytes, shown as 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(pub u128);

/// The caller's span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The caller's trace. Never zero.
    pub trace_id: TraceId,
    /// The caller's span. Never zero.
    pub span_id: u64,
    /// Whether the caller records this trace.
    pub sampled: bool,
    /// Data that tracing systems pass along; may be empty.
    pub tracestate: String,
}

impl TraceContext {
    /// Reads the context from a caller's headers.
    ///
    /// Malformed headers are ignored, as the standard requires (§3.2.2.5).
    pub fn of(traceparent: Option<&str>, tracestate: Option<&str>, trusted: bool) -> Self {
        let mut caller = traceparent.and_then(parse);
        if let Some(caller) = &mut caller {
            caller.tracestate = tracestate
                .filter(|text| text.len() <= TRACESTATE_BYTES_MAX)
                .unwrap_or_default()
                .into();
        }
        let continued = caller.as_ref().filter(|_| trusted).map(|caller| caller.trace_id);
        Self { trace_id: continued.unwrap_or_else(TraceId::random), caller }
    }

    /// The caller's span, if its trace is continued.
    pub fn parent(&self) -> Option<&Caller> {
        self.caller.as_ref().filter(|caller| caller.trace_id == self.trace_id)
    }

    /// The caller's span, if its trace is not continued.
    pub fn link(&self) -> Option<&Caller> {
        self.caller.as_ref().filter(|caller| caller.trace_id != self.trace_id)
    }

    /// Whether the caller sent a trace, so that a `traceresponse` is useful.
    pub fn has_caller(&self) -> bool {
        self.caller.is_some()
    }
}

impl TraceId {
    fn random() -> Self {
        // As random as a UUID, because it becomes the request id if the client sends none.
        Self(uuid::Uuid::new_v4().as_u128())
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Formatting a UUID without hyphens is faster than formatting a number.
        uuid::Uuid::from_u128(self.0).simple().fmt(f)
    }
}

/// Parses `version "-" trace-id "-" parent-id "-" trace-flags`. Later versions may add more.
fn parse(text: &str) -> Option<Caller> {
    let mut parts = text.split('-');
    let mut hex = |digits: usize| {
        let part = parts.next().filter(|part| part.len() == digits)?;
        let lower = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        part.bytes().all(lower).then(|| u128::from_str_radix(part, 16).ok())?
    };
    let (version, trace_id, span_id, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
    let more = parts.next().is_some();
    let known = version == 0 && !more || (1..0xff).contains(&version);
    let span_id = u64::try_from(span_id).ok()?;
    let caller = Caller {
        trace_id: TraceId(trace_id),
        span_id,
        sampled: flags & 1 == 1,
        tracestate: String::new(),
    };
    (known && trace_id != 0 && span_id != 0).then_some(caller)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    #[test]
    fn a_trusted_callers_trace_is_continued() {
        let header = format!("00-{TRACE}-b7ad6b7169203331-01");
        let context = TraceContext::of(Some(&header), Some("rojo=00f067aa0ba902b7"), true);
        assert_eq!(context.trace_id.to_string(), TRACE);
        let parent = context.parent().unwrap();
        assert_eq!((parent.span_id, parent.sampled), (0xb7ad_6b71_6920_3331, true));
        assert_eq!(parent.tracestate, "rojo=00f067aa0ba902b7");
        // A later version may say more.
        let later =
            TraceContext::of(Some(&format!("01-{TRACE}-b7ad6b7169203331-00-new")), None, true);
        assert!(!later.parent().unwrap().sampled);
        assert_eq!(later.link(), None);
    }

    #[test]
    fn an_untrusted_callers_trace_is_linked_but_not_continued() {
        let header = format!("00-{TRACE}-b7ad6b7169203331-01");
        let context = TraceContext::of(Some(&header), Some("a=b"), false);
        assert_ne!(context.trace_id.to_string(), TRACE);
        assert_eq!(context.parent(), None);
        let link = context.link().unwrap();
        assert_eq!(
            (link.trace_id.to_string().as_str(), link.span_id),
            (TRACE, 0xb7ad_6b71_6920_3331)
        );
    }

    #[test]
    fn a_malformed_header_begins_a_new_trace() {
        let zero = "0".repeat(32);
        for header in [
            String::new(),
            "00".into(),
            format!("00-{TRACE}-b7ad6b7169203331"),
            format!("00-{TRACE}-b7ad6b7169203331-01-more"),
            format!("ff-{TRACE}-b7ad6b7169203331-01"),
            format!("00-{zero}-b7ad6b7169203331-01"),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00-{}-b7ad6b7169203331-01", TRACE.to_uppercase()),
            format!("00-+{}-b7ad6b7169203331-01", &TRACE[1..]),
        ] {
            let context = TraceContext::of(Some(&header), Some("a=b"), true);
            assert!(!context.has_caller(), "{header}");
            assert_ne!(context.trace_id.0, 0);
        }
        let long = "x".repeat(TRACESTATE_BYTES_MAX + 1);
        let header = format!("00-{TRACE}-b7ad6b7169203331-01");
        let context = TraceContext::of(Some(&header), Some(&long), true);
        assert_eq!(context.parent().unwrap().tracestate, "");
    }
}
