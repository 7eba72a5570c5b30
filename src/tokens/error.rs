//! The errors of loading and changing keys.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why the keys could not be loaded or changed. Each variant names the file.
///
/// A damaged file is never overwritten.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The operating system refused.
    #[error("cannot {action} {path}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was attempted.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// Users other than the owner may read the file.
    #[error(
        "key file {path} is readable by other users (mode {mode:04o}): run chmod 600, or replace the key if it may have been read"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The content does not match the name.
    #[error("key file {path} is damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// More files than any rotation needs.
    #[error("key folder {path} has {limit} keys or more: retire old ones")]
    TooMany {
        /// The folder.
        path: PathBuf,
        /// How many it may have.
        limit: usize,
    },
    /// The folder does not exist or has no key. Nothing was created.
    #[error(
        "no keys in {path}: a server makes them at its first start; set STAUNCH_DATA_DIR or STAUNCH_KEYS_DIR if they are elsewhere"
    )]
    None {
        /// The folder.
        path: PathBuf,
    },
    /// The folder of a running server has no access key or no refresh key.
    #[error(
        "key folder {path} has no access key or no refresh key: the keys loaded before stay in use"
    )]
    Missing {
        /// The folder.
        path: PathBuf,
    },
    /// Another process works in the folder, or was paused while it did.
    #[error("key folder {path} has been locked by another process for {} s", waited.as_secs())]
    Locked {
        /// The folder.
        path: PathBuf,
        /// The length of the wait.
        waited: Duration,
    },
    /// The random number generator or the key generator failed.
    #[error("generating a key failed")]
    Generate,
}
