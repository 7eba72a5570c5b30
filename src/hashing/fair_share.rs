//! Equal shares of a worker's time for logins and new passwords.

use super::admission::HashPurpose;

/// Counts the work that one worker started for each purpose.
#[derive(Default)]
pub(super) struct FairShare {
    /// Rounds started for logins minus rounds started for new passwords.
    verify_ahead: i64,
}

impl FairShare {
    /// The purpose to serve next, if both have jobs: the one that has had less work.
    pub(super) fn next(&self) -> HashPurpose {
        if self.verify_ahead > 0 { HashPurpose::Hash } else { HashPurpose::Verify }
    }

    /// Records a started job. `other_waits`: whether the other purpose has a waiting job.
    ///
    /// A purpose gains or loses no credit while the other has no jobs.
    pub(super) fn started(&mut self, purpose: HashPurpose, rounds: u32, other_waits: bool) {
        let rounds = i64::from(rounds);
        let ahead = match purpose {
            HashPurpose::Verify => self.verify_ahead + rounds,
            HashPurpose::Hash => self.verify_ahead - rounds,
        };
        self.verify_ahead = if other_waits { ahead } else { 0 };
    }
}
