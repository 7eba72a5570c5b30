//! Why the keys cannot be used.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why the keys cannot be used. Each variant names the file; none is ever repaired by writing
/// over it.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The operating system refused.
    #[error("cannot {action} {path}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// Others than the owner may read it.
    #[error(
        "key file {path} may be read by others (mode {mode:04o}): chmod 600 it, or replace it if they did"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not what its name says.
    #[error("key file {path} is damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// More files than rotations make.
    #[error("key folder {path} holds {limit} keys or more: retire old ones")]
    TooMany {
        /// The folder.
        path: PathBuf,
        /// How many it may hold.
        limit: usize,
    },
    /// There is no key yet, or no folder. Nothing was made.
    #[error(
        "no keys in {path}: a server makes them at its first start; set STAUNCH_DATA_DIR or STAUNCH_KEYS_DIR if they are elsewhere"
    )]
    None {
        /// The folder.
        path: PathBuf,
    },
    /// The folder of a running server has lost all keys of a kind.
    #[error("key folder {path} lacks keys: the ones that were read before stay in use")]
    Missing {
        /// The folder.
        path: PathBuf,
    },
    /// Another process is at work in the folder, or was stopped in the middle of it.
    #[error("key folder {path} has been locked by another process for {} s", waited.as_secs())]
    Locked {
        /// The folder.
        path: PathBuf,
        /// How long we waited for it.
        waited: Duration,
    },
    /// The random number generator or the key generator failed.
    #[error("no new key could be made")]
    Generate,
}
