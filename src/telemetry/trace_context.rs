//! W3C Trace Context: which distributed trace a request belongs to.

use std::fmt;

/// Longest `tracestate` that is passed on, in octets: what the standard says should be (§3.3.1.5).
const TRACESTATE_OCTETS_MAX: usize = 512;

/// The trace of one request: its caller's, or a new one (W3C Trace Context, level 1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// Never zero.
    pub trace_id: TraceId,
    /// The caller's span; `None` begins a trace.
    pub parent: Option<Parent>,
}

/// Sixteen octets, shown as 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(pub u128);

/// Where the request came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    /// The caller's span. Never zero.
    pub span_id: u64,
    /// Whether the caller records this trace.
    pub sampled: bool,
    /// What tracing systems on the way wish to have passed on; empty if there is nothing.
    pub tracestate: String,
}

impl TraceContext {
    /// The context that the headers carry. One that is not well-formed is ignored, as the standard
    /// asks (§3.2.2.5): the request begins a trace then.
    pub fn of(traceparent: Option<&str>, tracestate: Option<&str>) -> Self {
        let Some((trace_id, mut parent)) = traceparent.and_then(parse) else {
            return Self::new();
        };
        parent.tracestate = tracestate
            .filter(|text| text.len() <= TRACESTATE_OCTETS_MAX)
            .unwrap_or_default()
            .into();
        Self { trace_id, parent: Some(parent) }
    }

    fn new() -> Self {
        // The request id of a client that sends none is made of it, so it is as random as a UUID.
        Self { trace_id: TraceId(uuid::Uuid::new_v4().as_u128()), parent: None }
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The form of a UUID without hyphens, which is quicker to write than a number.
        uuid::Uuid::from_u128(self.0).simple().fmt(f)
    }
}

/// `version "-" trace-id "-" parent-id "-" trace-flags`, with more behind it in later versions.
fn parse(text: &str) -> Option<(TraceId, Parent)> {
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
    let parent = Parent { span_id, sampled: flags & 1 == 1, tracestate: String::new() };
    (known && trace_id != 0 && span_id != 0).then_some((TraceId(trace_id), parent))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    #[test]
    fn a_callers_trace_is_continued() {
        let header = format!("00-{TRACE}-b7ad6b7169203331-01");
        let context = TraceContext::of(Some(&header), Some("rojo=00f067aa0ba902b7"));
        assert_eq!(context.trace_id.to_string(), TRACE);
        let parent = context.parent.unwrap();
        assert_eq!((parent.span_id, parent.sampled), (0xb7ad_6b71_6920_3331, true));
        assert_eq!(parent.tracestate, "rojo=00f067aa0ba902b7");
        // A later version may say more.
        let later = TraceContext::of(Some(&format!("01-{TRACE}-b7ad6b7169203331-00-new")), None);
        assert!(!later.parent.unwrap().sampled);
    }

    #[test]
    fn what_is_not_well_formed_begins_a_trace() {
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
            let context = TraceContext::of(Some(&header), Some("a=b"));
            assert_eq!(context.parent, None, "{header}");
            assert_ne!(context.trace_id.0, 0);
        }
        let long = "x".repeat(TRACESTATE_OCTETS_MAX + 1);
        let header = format!("00-{TRACE}-b7ad6b7169203331-01");
        let context = TraceContext::of(Some(&header), Some(&long));
        assert_eq!(context.parent.unwrap().tracestate, "");
    }
}
