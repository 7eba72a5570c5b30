//! A new password for an account.

use super::attempt::{Attempt, Refusal};
use super::register::{Field, FieldError, field};
use super::{Auth, Inner, MeError};
use crate::hashing::{HashError, HashPurpose, Password};
use crate::identity::{LoginName, Origin};
use crate::secret::Secret;
use crate::store::{NewPassword, StoreError};
use std::time::Duration;

/// What somebody who changes a password typed.
#[derive(Debug)]
pub struct ChangePassword {
    /// The password so far.
    pub current: Field<Secret>,
    /// The one to come.
    pub new: Field<Secret>,
    /// Where it comes from: what failures are counted by, and for the audit log.
    pub origin: Origin,
}

/// Why the password stays as it was.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// The access token opens nothing.
    #[error("access token rejected")]
    Token(#[source] MeError),
    /// Fields break rules: all of them.
    #[error("{} fields are invalid", .0.len())]
    Invalid(Vec<FieldError>),
    /// Not the current password; or the account, or the session, changed meanwhile.
    #[error("credentials rejected")]
    Rejected,
    /// Too many failures before; the current password, right or wrong, was not looked at.
    #[error("too many wrong passwords, retry in {retry_after:?}")]
    Locked {
        /// Until the next try is looked at.
        retry_after: Duration,
    },
    /// A password was not hashed.
    #[error("the password was not hashed")]
    Hash(#[source] HashError),
    /// The database gave no answer; the password may have been replaced.
    #[error("the account store gave no answer")]
    Store(#[source] StoreError),
}

impl Auth {
    /// Replaces the password of an access token's account, and ends its other sessions. The
    /// current password is asked for again: whoever found an open session shall not take over the
    /// account. Both places in the hash queue are taken before the first query.
    ///
    /// A wrong one counts as a failed login under the account's username, and is slowed like one: an
    /// access token shall not open a way to guess at the password.
    ///
    /// A login with the old password that is under way gets no session, or one that ends here.
    ///
    /// # Errors
    /// See [`PasswordError`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves all as it was, or all of it done.
    pub async fn change_password(
        &self,
        token: &str,
        request: ChangePassword,
    ) -> Result<(), PasswordError> {
        let Inner { engine, store, tokens, sessions, meters, .. } = &*self.0;
        // Costs no query: a token that is none shall not take a place from a login.
        if tokens.verify_access(token).is_err() {
            meters.bearer_checks.increment("rejected");
            return Err(PasswordError::Token(MeError::Rejected));
        }
        let origin = request.origin.clone();
        let (current, new) = check(request).map_err(PasswordError::Invalid)?;
        let verify = engine.reserve(HashPurpose::Verify).map_err(PasswordError::Hash)?;
        let hash = engine.reserve(HashPurpose::Hash).map_err(PasswordError::Hash)?;
        let caller = self.caller(token).await.map_err(PasswordError::Token)?;
        let user = caller.account.id;
        let name = LoginName::parse(&caller.account.username);
        let attempt = Attempt::new(self, "password_change", &name, &origin);
        attempt.may_go_on(Some(user)).await?;
        let found = store.credentials_of(user).await.map_err(PasswordError::Store)?;
        let account = found.filter(|account| account.is_active).ok_or(PasswordError::Rejected)?;
        match engine.verify(verify, current, &account.password_hash).await {
            Ok(verdict) if verdict.matches => {}
            Ok(_) => return Err(attempt.failed(Some(user)).into()),
            Err(HashError::Stored(error)) => {
                return Err(attempt.unusable(Some(user), &error).into());
            }
            Err(error) => return Err(PasswordError::Hash(error)),
        }
        // Others may have failed while it was hashed.
        attempt.may_go_on(Some(user)).await?;
        attempt.succeeded(&account.names);
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
        sessions.account_changed(user);
        Ok(())
    }
}

impl From<Refusal> for PasswordError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Rejected => Self::Rejected,
            Refusal::Locked { retry_after } => Self::Locked { retry_after },
        }
    }
}

/// Checks both passwords, and returns either them or everything that is wrong.
fn check(request: ChangePassword) -> Result<(Password, Password), Vec<FieldError>> {
    const NEW: &str = "new_password";
    let mut errors = Vec::new();
    let same =
        matches!((&request.current, &request.new), (Ok(a), Ok(b)) if a.expose() == b.expose());
    let current = field(&mut errors, "current_password", request.current, |text| {
        Ok(Password::attempt(text.expose().to_owned()))
    });
    let new = field(&mut errors, NEW, request.new, |text| {
        Password::new(text.expose().to_owned()).map_err(|rule| rule.to_string())
    });
    match (current, new) {
        (Some(_), Some(_)) if same => {
            let message = "must differ from the current password".to_owned();
            Err(vec![FieldError { field: NEW, message }])
        }
        (Some(current), Some(new)) => Ok((current, new)),
        _ => Err(errors),
    }
}
