//! Text that must not be seen: cleared when dropped, masked when printed.

use std::fmt;
use zeroize::Zeroizing;

/// A secret string: a database URL, a token as the client sent it.
///
/// The octets are overwritten when it is dropped. `Debug` prints a mask, and there is no
/// `Display` and no `Serialize`: reading it takes a call to [`Secret::expose`], which is easy to
/// search for.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the text over; the caller keeps no copy.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn debug_shows_nothing_of_it() {
        assert_eq!(format!("{:?}", Secret::new("hunter2".into())), "Secret(***)");
    }
}
