//! Secret text: cleared on drop, masked in output.

use std::fmt;
use zeroize::Zeroizing;

/// A secret string, such as a database URL or a client's token.
///
/// The bytes are overwritten on drop. `Debug` prints a mask, and there is no `Display` and no
/// `Serialize`. Reading the text takes a call to [`Secret::expose`], which is easy to search for.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes ownership of the text. The caller should keep no copy.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself, for the code that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The bytes of the text, without a copy. They are still cleared on drop.
    pub(crate) fn into_bytes(mut self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(std::mem::take(&mut *self.0).into_bytes())
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
    fn debug_output_is_masked() {
        assert_eq!(format!("{:?}", Secret::new("hunter2".into())), "Secret(***)");
    }
}
