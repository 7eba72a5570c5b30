//! Parses the hash of an account: a supported text form, or a credential of a Keycloak export.

use crate::hashing::{StoredHash, StoredHashError};
use serde_json::{Map, Value};

/// Parses a hash, and returns its stored form.
///
/// `$2a$` and `$2y$` become `$2b$`, and other algorithms get the PHC form. `cost` is the configured
/// cost, which bounds the cost of a bcrypt hash.
///
/// # Errors
/// What is wrong with the hash. Contains no salt and no digest.
pub(super) fn parse(value: Value, cost: u32) -> Result<String, String> {
    match value {
        Value::Object(credential) => usable(&keycloak(&credential)?, cost),
        // The form in a database query or a CSV file.
        Value::String(text) if text.starts_with('{') => {
            let credential = serde_json::from_str(&text).map_err(|_| "is not a JSON object")?;
            usable(&keycloak(&credential)?, cost)
        }
        Value::String(text) => usable(&text, cost),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
            Err("must be a string or a Keycloak credential".into())
        }
    }
}

fn usable(text: &str, cost: u32) -> Result<String, String> {
    let hash = StoredHash::usable(text, cost).map_err(|error| match error {
        StoredHashError::Malformed => {
            "must be a bcrypt hash ($2a$, $2b$ or $2y$, a cost of two digits, $ and 53 characters), \
             or begin with $argon2id$, $argon2i$, $scrypt$, $pbkdf2-sha256$, $pbkdf2-sha512$ or \
             pbkdf2_sha256$"
                .to_owned()
        }
        StoredHashError::Broken => {
            "has the broken $2x$ form: this password must be reset".to_owned()
        }
        StoredHashError::Cost(cost) => format!("has the cost {cost}, but bcrypt allows 4 to 31"),
        StoredHashError::TooCostly { cost, max } => format!(
            "has the cost {cost}, but a login accepts at most {max} (two more than STAUNCH_BCRYPT_COST)"
        ),
        StoredHashError::Damaged(algorithm) => format!("is a damaged {algorithm} hash"),
        StoredHashError::Unsupported(what) => {
            format!("is {what}, which is not supported: this password must be reset")
        }
        StoredHashError::OutOfBounds { algorithm, parameter, value, least, most } => format!(
            "has the {algorithm} parameter {parameter} = {value}, but a login accepts {least} to {most}"
        ),
    })?;
    Ok(hash.to_string())
}

/// Converts a Keycloak credential to PHC text.
///
/// The credential is a member of a user's `credentials` in a realm export, or the columns
/// `secret_data` and `credential_data` of Keycloak's database. The PHC parser checks its numbers
/// and base64.
fn keycloak(credential: &Map<String, Value>) -> Result<String, String> {
    if credential.get("type").is_some_and(|kind| kind != "password") {
        return Err("is a Keycloak credential that is not a password".into());
    }
    let incomplete = || "is an incomplete Keycloak credential".to_owned();
    let secret = part(credential, "secretData").ok_or_else(incomplete)?;
    let data = part(credential, "credentialData").ok_or_else(incomplete)?;
    let base64 = |name| Some(secret.get(name)?.as_str()?.trim_end_matches('='));
    let (salt, digest) = base64("salt").zip(base64("value")).ok_or_else(incomplete)?;
    let algorithm = data.get("algorithm").and_then(Value::as_str).ok_or_else(incomplete)?;
    let iterations = data.get("hashIterations").and_then(Value::as_u64).ok_or_else(incomplete)?;
    if algorithm != "argon2" {
        return Ok(format!("${algorithm}$i={iterations}${salt}${digest}"));
    }
    let more = part(&data, "additionalParameters").ok_or_else(incomplete)?;
    // Each parameter is a list of one value.
    let first = |name| more.get(name)?.as_array()?.first()?.as_str();
    let version = match first("version") {
        Some("1.3") => "19",
        Some("1.0") => "16",
        _ => return Err(incomplete()),
    };
    let kind = first("type").ok_or_else(incomplete)?;
    let (memory, lanes) = first("memory").zip(first("parallelism")).ok_or_else(incomplete)?;
    Ok(format!("$argon2{kind}$v={version}$m={memory},t={iterations},p={lanes}${salt}${digest}"))
}

/// Returns a member that is an object or, as in exports, the JSON text of one.
fn part(object: &Map<String, Value>, name: &str) -> Option<Map<String, Value>> {
    match object.get(name)? {
        Value::Object(part) => Some(part.clone()),
        Value::String(text) => serde_json::from_str(text).ok(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const SALT: &str = "EBESExQVFhcYGRobHB0eHw==";
    const DIGEST: &str = "J4TBlm8s36o4Df1JLPBeH/yzVuYtjHI0zX8M7oP9s2Q=";

    /// A credential as Keycloak exports it: two members are JSON text.
    fn credential(data: Value) -> Value {
        let secret = json!({"value": DIGEST, "salt": SALT, "additionalParameters": {}});
        json!({
            "id": "3b1f", "type": "password", "createdDate": 1_600_000_000_000_u64,
            "secretData": secret.to_string(), "credentialData": data.to_string(),
        })
    }

    fn argon2(name: &str, value: &str) -> Value {
        let mut more = json!({
            "hashLength": ["32"], "memory": ["7168"], "type": ["id"], "version": ["1.3"],
            "parallelism": ["1"],
        });
        more[name] = json!([value]);
        credential(
            json!({"hashIterations": 5, "algorithm": "argon2", "additionalParameters": more}),
        )
    }

    fn read(value: Value) -> Result<String, String> {
        parse(value, 12).inspect_err(|error| {
            assert!(!error.contains(&SALT[..8]) && !error.contains(&DIGEST[..8]), "{error}");
        })
    }

    #[test]
    fn keycloak_credentials_become_phc_text() {
        let (salt, digest) = (SALT.trim_end_matches('='), DIGEST.trim_end_matches('='));
        for (algorithm, iterations) in [("pbkdf2-sha256", 27_500), ("pbkdf2-sha512", 210_000)] {
            let data = json!({"hashIterations": iterations, "algorithm": algorithm});
            let text = format!("${algorithm}$i={iterations}${salt}${digest}");
            assert_eq!(read(credential(data.clone())), Ok(text.clone()));
            assert_eq!(read(credential(data).to_string().into()), Ok(text.clone()), "as text");
            assert_eq!(read(text.clone().into()), Ok(text), "as it is stored");
        }
        let text = format!("$argon2id$v=19$m=7168,t=5,p=1${salt}${digest}");
        assert_eq!(read(argon2("type", "id")), Ok(text));
    }

    #[test]
    fn error_messages_do_not_contain_the_hash() {
        let data = |algorithm: &str, iterations: Value| {
            credential(json!({"hashIterations": iterations, "algorithm": algorithm}))
        };
        let mut other = data("pbkdf2-sha256", 1.into());
        other["type"] = "otp".into();
        for (value, error) in [
            (other, "is a Keycloak credential that is not a password"),
            (data("pbkdf2-sha256", "1".into()), "is an incomplete Keycloak credential"),
            (data("pbkdf2-sha256", (-1).into()), "is an incomplete Keycloak credential"),
            (data("pbkdf2-sha256", 0.into()), "has the PBKDF2 parameter iterations = 0, but"),
            (data("pbkdf2", 1_300_000.into()), "is PBKDF2 with SHA-1, which is not supported"),
            (data("md5", 1.into()), "must be a bcrypt hash"),
            (argon2("type", "d"), "is argon2d, which is not supported"),
            (argon2("version", "1.0"), "is argon2 of version 1.0, which is not supported"),
            (argon2("version", "2"), "is an incomplete Keycloak credential"),
            (argon2("memory", "8388608"), "has the argon2 parameter m = 8388608, but a login"),
            (argon2("memory", "much"), "is a damaged argon2 hash"),
            (json!({}), "is an incomplete Keycloak credential"),
            (json!("{"), "is not a JSON object"),
            (json!(["$2b$"]), "must be a string or a Keycloak credential"),
        ] {
            let message = read(value.clone()).unwrap_err();
            assert!(message.starts_with(error), "{value}: {message}");
        }
    }

    proptest! {
        #[test]
        fn hostile_credentials_never_panic(algorithm in "\\PC{0,20}", salt in "\\PC{0,20}", times: u64) {
            let data = json!({"hashIterations": times, "algorithm": algorithm});
            let secret = json!({"value": salt, "salt": salt});
            let _ = parse(json!({"secretData": secret, "credentialData": data}), 12);
        }
    }
}
