//! An error on one line.

use std::error::Error;

/// An error and its causes, outermost first, for the one place that prints it. A cause that the text
/// so far repeats already, as some libraries' messages do, is left out.
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
    fn causes_follow_once_each() {
        let layer = |text, source: Option<Layer>| Layer { text, source: source.map(Box::new) };
        let inner = layer("connection reset", None);
        let repeated = layer("query failed: connection reset", Some(inner));
        let outer = layer("login failed", Some(repeated));
        assert_eq!(with_causes(&outer), "login failed: query failed: connection reset");
    }
}
