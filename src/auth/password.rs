//! Changes the password of an account.
//!
//! The account is read, the current password verified, and the new one hashed. Then one transaction
//! stores the hash and ends the other sessions. Its first statement waits for logins that hold the
//! account (`FOR SHARE`); its second sees their sessions. Later logins find the account changed.

use super::attempt::{Attempt, Refusal};
use super::register::{Field, FieldError, field, new_password};
use super::{Auth, Inner, MeError};
use crate::hashing::{HashError, HashPurpose, Password};
use crate::identity::{LoginName, Origin};
use crate::limiter::{QuotaStatus, SharedCheck};
use crate::secret::Secret;
use crate::store::{NewPassword, StoreError};
use std::time::Duration;

/// A request to change a password.
#[derive(Debug)]
pub struct ChangePassword {
    /// The current password.
    pub current: Field<Secret>,
    /// The new password.
    pub new: Field<Secret>,
    /// The origin of the request, for the lockout and the audit log.
    pub origin: Origin,
}

/// Why the password was not changed.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// The access token was refused.
    #[error("access token rejected")]
    Token(#[source] MeError),
    /// All invalid fields.
    #[error("{} fields are invalid", .0.len())]
    Invalid(Vec<FieldError>),
    /// The current password is wrong, or the account or session changed in the meantime.
    #[error("credentials rejected")]
    Rejected,
    /// Too many earlier failures. Says nothing about whether the current password is right.
    #[error("too many wrong passwords, retry in {retry_after:?}")]
    Locked {
        /// The time until the next attempt is checked.
        retry_after: Duration,
    },
    /// A limit that all nodes share is reached.
    #[error("too many password changes from this address")]
    Limited(QuotaStatus),
    /// A password was not hashed.
    #[error("the password was not hashed")]
    Hash(#[source] HashError),
    /// The database did not answer; the password may have been replaced.
    #[error("the account store did not answer")]
    Store(#[source] StoreError),
}

impl Auth {
    /// Replaces the password of an access token's account, and ends its other sessions.
    ///
    /// Requires the current password, so that a stolen token cannot take over the account. A wrong
    /// one counts as a failed login under the account's username, so that the token gives no extra
    /// guesses. Both slots of the hash queue are reserved before the first query.
    ///
    /// A concurrent login with the old password gets no session, or one that this call ends.
    ///
    /// # Errors
    /// See [`PasswordError`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves the account unchanged, or the change complete.
    pub async fn change_password(
        &self,
        token: &str,
        request: ChangePassword,
        limits: Option<&SharedCheck>,
    ) -> Result<(), PasswordError> {
        let Inner { engine, store, tokens, session_cache, metrics, .. } = &*self.0;
        // Costs no query: an invalid token must not take a queue slot from a login.
        if tokens.verify_access(token).is_err() {
            metrics.bearer_checks.increment("rejected");
            return Err(PasswordError::Token(MeError::Rejected));
        }
        let origin = request.origin.clone();
        let (current, new) = check(request).map_err(PasswordError::Invalid)?;
        let verify = engine.reserve(HashPurpose::Verify).map_err(PasswordError::Hash)?;
        let hash = engine.reserve(HashPurpose::Hash).map_err(PasswordError::Hash)?;
        let caller = self.caller(token).await.map_err(PasswordError::Token)?;
        let user = caller.account.id;
        let name = LoginName::parse(&caller.account.username);
        let mut attempt = Attempt::new(self, "password_change", &name, &origin);
        attempt.begin(Some(user), limits).await?;
        let found = store.credentials_of(user).await.map_err(PasswordError::Store)?;
        let account = found.filter(|account| account.is_active).ok_or(PasswordError::Rejected)?;
        match engine.verify(verify, current, &account.password_hash).await {
            Ok(verdict) if verdict.matches => {}
            Ok(_) => return Err(attempt.failed(Some(user)).await.into()),
            Err(HashError::Stored(error)) => {
                return Err(attempt.unusable(Some(user), &error).await.into());
            }
            Err(error) => return Err(PasswordError::Hash(error)),
        }
        attempt.succeed(user, &account.names).await?;
        let password_hash = engine.hash(hash, new).await.map_err(PasswordError::Hash)?.to_string();
        let replaced = store
            .replace_password(&NewPassword {
                user,
                session: caller.session,
                account_version: account.updated_at,
                password_hash: &password_hash,
                origin: &origin,
            })
            .await
            .map_err(PasswordError::Store)?;
        if !replaced {
            return Err(PasswordError::Rejected);
        }
        session_cache.account_changed(user);
        Ok(())
    }
}

impl From<Refusal> for PasswordError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Rejected => Self::Rejected,
            Refusal::Locked { retry_after } => Self::Locked { retry_after },
            Refusal::Limited(status) => Self::Limited(status),
        }
    }
}

/// Checks both passwords, and returns either both or all errors.
fn check(request: ChangePassword) -> Result<(Password, Password), Vec<FieldError>> {
    const NEW: &str = "new_password";
    let mut errors = Vec::new();
    let same =
        matches!((&request.current, &request.new), (Ok(a), Ok(b)) if a.expose() == b.expose());
    let current =
        field(&mut errors, "current_password", request.current, |text| Ok(Password::attempt(text)));
    let new = field(&mut errors, NEW, request.new, new_password);
    match (current, new) {
        (Some(_), Some(_)) if same => {
            let message = "must differ from the current password".to_owned();
            Err(vec![FieldError { field: NEW, message }])
        }
        (Some(current), Some(new)) => Ok((current, new)),
        _ => Err(errors),
    }
}
