//! Errors with their causes on one line.

use std::error::Error;

/// Formats an error and its causes on one line, outermost first.
///
/// A cause that the text already contains is left out, because some libraries repeat their causes.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Layer>>,
    }

    #[test]
    fn each_cause_appears_once() {
        let layer = |text, source: Option<Layer>| Layer { text, source: source.map(Box::new) };
        let inner = layer("connection reset", None);
        let repeated = layer("query failed: connection reset", Some(inner));
        let outer = layer("login failed", Some(repeated));
        assert_eq!(with_causes(&outer), "login failed: query failed: connection reset");
    }
}
