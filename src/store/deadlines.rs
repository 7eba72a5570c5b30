//! The time limits of database calls.

use std::time::Duration;

/// Time limit for a whole call: waiting for a connection, query and answer.
///
/// A login must be answered within 5 s while the database is away.
pub const CALL_DEADLINE: Duration = Duration::from_millis(3_500);

/// The time limits of a database call. Only tests that hold a lock change them.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// A whole call.
    pub call: Duration,
    /// A statement, on the server.
    ///
    /// The longest statement, a clean-up batch, takes tens of milliseconds; a login's statements take
    /// one.
    pub statement: Duration,
    /// The wait for a lock, on the server. Only two refreshes of one session wait for one.
    pub lock: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            call: CALL_DEADLINE,
            statement: Duration::from_secs(3),
            lock: Duration::from_secs(2),
        }
    }
}
