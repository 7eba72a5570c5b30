//! Registration.

use super::{Auth, hash_label, store_label};
use crate::hashing::{HashError, HashPurpose, Password};
use crate::identity::{Email, Origin, Username};
use crate::limiter::{QuotaStatus, SharedCheck};
use crate::secret::Secret;
use crate::store::{self, Account, NewUser, StoreError};

/// The text of a request field, or why it is missing.
pub type Field<T> = Result<T, &'static str>;

/// A registration request.
#[derive(Debug)]
pub struct Register {
    /// E-mail address.
    pub email: Field<String>,
    /// Username.
    pub username: Field<String>,
    /// Password.
    pub password: Field<Secret>,
    /// The origin of the request, for the audit log.
    pub origin: Origin,
}

/// An invalid field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The field's name in the request.
    pub field: &'static str,
    /// What is wrong, for the user. Repeats nothing of the value.
    pub message: String,
}

/// Why no account was created.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// All invalid fields.
    #[error("{} fields are invalid", .0.len())]
    Invalid(Vec<FieldError>),
    /// Another account has the name in this field.
    #[error("the {field} is taken")]
    Taken {
        /// `email` or `username`.
        field: &'static str,
    },
    /// A limit that all nodes share is reached.
    #[error("too many registrations from this address")]
    Limited(QuotaStatus),
    /// The password was not hashed; nothing was stored.
    #[error("the password was not hashed")]
    Hash(#[source] HashError),
    /// The database did not answer; the account may exist.
    #[error("the account was not stored")]
    Store(#[source] StoreError),
}

impl Auth {
    /// Creates an account.
    ///
    /// The request is counted in the limits that all nodes share before anything else. The password is
    /// hashed before a database connection is acquired. The unique index decides whether a name is
    /// taken, so one of two concurrent requests gets it.
    ///
    /// # Errors
    /// See [`RegisterError`].
    ///
    /// # Cancel safety
    /// Dropping the future before the row is sent creates nothing; later it may create the account.
    pub async fn register(
        &self,
        request: Register,
        limits: Option<&SharedCheck>,
    ) -> Result<Account, RegisterError> {
        self.count_shared(limits).await.map_err(RegisterError::Limited)?;
        let result = self.try_register(request).await;
        let label = match &result {
            Ok(_) => "success",
            Err(RegisterError::Invalid(_)) => "invalid",
            Err(RegisterError::Taken { .. }) => "conflict",
            // Refused above, and counted with the limits.
            Err(RegisterError::Limited(_)) => return result,
            Err(RegisterError::Hash(error)) => hash_label(error),
            Err(RegisterError::Store(error)) => store_label(error),
        };
        self.0.metrics.registrations.increment(label);
        result
    }

    async fn try_register(&self, request: Register) -> Result<Account, RegisterError> {
        let Register { email, username, password, origin } = request;
        let checked = check(email, username, password);
        let (email, username, password) = checked.map_err(RegisterError::Invalid)?;
        let permit = self.0.engine.reserve(HashPurpose::Hash).map_err(RegisterError::Hash)?;
        let hash = self.0.engine.hash(permit, password).await.map_err(RegisterError::Hash)?;
        let password_hash = hash.to_string();
        let user = NewUser {
            email: &email,
            username: &username,
            password_hash: &password_hash,
            origin: Some(&origin),
        };
        self.0.store.insert_user(&user).await.map_err(|error| match error {
            store::RegisterError::EmailTaken => RegisterError::Taken { field: "email" },
            store::RegisterError::UsernameTaken => RegisterError::Taken { field: "username" },
            store::RegisterError::Store(error) => RegisterError::Store(error),
        })
    }
}

/// Checks a new password, and returns it or the rule that it breaks.
///
/// # Errors
/// See [`crate::hashing::PasswordRule`].
pub fn new_password(text: Secret) -> Result<Password, String> {
    Password::new(text).map_err(|rule| rule.to_string())
}

/// Checks every field, and returns either all values or all errors.
fn check(
    email: Field<String>,
    username: Field<String>,
    password: Field<Secret>,
) -> Result<(Email, Username, Password), Vec<FieldError>> {
    let mut errors = Vec::new();
    let email = field(&mut errors, "email", email, |text| Email::parse(&text));
    let username = field(&mut errors, "username", username, |text| Username::parse(&text));
    let password = field(&mut errors, "password", password, new_password);
    match (email, username, password) {
        (Some(email), Some(username), Some(password)) => Ok((email, username, password)),
        _ => Err(errors),
    }
}

pub(super) fn field<T, U>(
    errors: &mut Vec<FieldError>,
    field: &'static str,
    value: Field<T>,
    parse: impl FnOnce(T) -> Result<U, String>,
) -> Option<U> {
    let parsed = value.map_err(str::to_owned).and_then(parse);
    parsed.map_err(|message| errors.push(FieldError { field, message })).ok()
}
