//! No `Debug` output, error or metric contains a password, token, hash or key. `tests/process`
//! checks the log of a whole process.

use crate::support::{PASSWORD, TestApp};
use staunch::auth::{ChangePassword, Login, Register};
use staunch::config::Config;
use staunch::hashing::Password;
use staunch::identity::{LoginName, Origin};
use staunch::secret::Secret;
use std::fmt::Debug;

#[track_caller]
fn hides(secret: &str, value: &impl Debug) {
    for text in [format!("{value:?}"), format!("{value:#?}")] {
        assert!(!text.contains(secret), "{text}");
    }
}

// Reliability: F9.
#[test]
fn debug_output_hides_passwords() {
    let password = || Password::attempt(Secret::new(PASSWORD.to_owned()));
    hides(PASSWORD, &password());
    hides(PASSWORD, &Password::new(Secret::new(PASSWORD.to_owned())));
    hides(PASSWORD, &Secret::new(PASSWORD.to_owned()));
    hides(
        PASSWORD,
        &Login {
            name: LoginName::parse("ada"),
            password: Secret::new(PASSWORD.to_owned()),
            origin: Origin {
                address: [127, 0, 0, 1].into(),
                user_agent: None,
                request_id: "1".into(),
            },
        },
    );
    hides(
        PASSWORD,
        &Register {
            email: Ok("a@example.com".into()),
            username: Ok("ada".into()),
            password: Ok(Secret::new(PASSWORD.to_owned())),
            origin: Origin {
                address: [127, 0, 0, 1].into(),
                user_agent: None,
                request_id: "1".into(),
            },
        },
    );
    hides(
        PASSWORD,
        &ChangePassword {
            current: Ok(Secret::new(PASSWORD.to_owned())),
            new: Ok(Secret::new(PASSWORD.to_owned())),
            origin: Origin {
                address: [127, 0, 0, 1].into(),
                user_agent: None,
                request_id: "1".into(),
            },
        },
    );
}

// Reliability: F9.
#[test]
fn debug_output_of_the_settings_hides_the_database_password() {
    let read = |url: &'static str| {
        Config::read(|setting| (setting.variable == "STAUNCH_DATABASE_URL").then(|| url.to_owned()))
    };
    let config = read("postgresql://ada:s3cret@db.example/auth").unwrap();
    hides("s3cret", &config);
    hides("s3cret", &config.settings);
    for bad in ["mysql://ada:s3cret@db", "postgresql://ada:s3cret@db:99999999/x", "s3cret"] {
        hides("s3cret", &read(bad).unwrap_err());
    }
}

// Reliability: F9.
#[test]
fn debug_output_of_stored_accounts_hides_the_hash() {
    let hash = "$2b$04$abcdefghijklmnopqrstuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuu";
    let email = staunch::identity::Email::parse("a@example.com").unwrap();
    let username = staunch::identity::Username::parse("ada").unwrap();
    hides(
        &hash[7..],
        &staunch::store::NewUser {
            email: &email,
            username: &username,
            password_hash: hash,
            origin: None,
        },
    );
    let argon2 = "$argon2id$v=19$m=64,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$r3LtSBteWTAiTq9c3zLR5iKOchn2M+l350kwZs2YXbs";
    for text in [&bcrypt::hash(PASSWORD, 4).unwrap(), argon2] {
        let stored = staunch::hashing::StoredHash::usable(text, 4).unwrap();
        hides(&stored.to_string()[text.len() - 31..], &stored);
    }
}

// Reliability: F9.
#[tokio::test]
async fn no_response_repeats_a_secret() {
    let app = TestApp::start().await;
    let tokens = app.registered("ada").await;
    let client = app.anonymous();
    let secret = "Hunter2-Hunter2";
    for reply in [
        client.login("ada", secret).await,
        client.login(secret, secret).await,
        client.register("nobody", secret, secret).await,
        client.register(secret, "ada", secret).await,
        client.refresh(secret).await,
        client.logout(secret).await,
        client.me(secret).await,
        client.change_password(&tokens.access, secret, "short").await,
        client.change_password(&tokens.access, secret, secret).await,
        client.change_password(&tokens.access, "wrong password", secret).await,
        client.end_session(&tokens.access, secret).await,
        client
            .post_form_text("/api/v1/auth/token", &format!("password={secret}&password={secret}"))
            .await,
        client.post_form("/api/v1/auth/token", &[("grant_type", secret)]).await,
        client.get(&format!("/{secret}")).await,
    ] {
        assert!(!reply.text().contains(secret), "{}", reply.text());
    }
    let page = app.anonymous().get("/metrics").await;
    for secret in [secret, &tokens.access, &tokens.refresh, PASSWORD] {
        assert!(!page.text().contains(secret));
    }
}

#[tokio::test]
async fn no_token_or_part_of_one_is_stored() {
    let app = TestApp::start().await;
    let tokens = app.registered("ada").await;
    app.anonymous().refresh(&tokens.refresh).await.tokens();
    let db = app.db().await;
    let rows = db
        .query("SELECT t::text FROM refresh_tokens t UNION ALL SELECT u::text FROM users u", &[])
        .await
        .unwrap();
    for row in rows {
        let text: String = row.get(0);
        for secret in [&tokens.access, &tokens.refresh, PASSWORD] {
            let part = &secret[secret.len() - 8..];
            assert!(!text.contains(part), "{text}");
        }
    }
}

// Reliability: D6.
#[tokio::test]
async fn key_files_are_private_and_a_damaged_one_is_never_overwritten() {
    use std::os::unix::fs::PermissionsExt;
    let keys = tempfile::tempdir().unwrap();
    let folder = keys.path().join("keys");
    let with_keys = || TestApp::builder().set("STAUNCH_KEYS_DIR", folder.display().to_string());
    let app = with_keys().start().await;
    let mut files = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
        files += 1;
    }
    assert_eq!(files, 2, "one signing key, one refresh token key");
    let mode = std::fs::metadata(&folder).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    drop(app);

    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let good = std::fs::read(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();

        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = with_keys().try_start().await.err().unwrap().to_string();
        assert!(error.contains(&name), "{error}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();

        std::fs::write(&path, "damaged").unwrap();
        let error = with_keys().try_start().await.err().unwrap().to_string();
        assert!(error.contains(&name), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"damaged", "the file is unchanged");
        std::fs::write(&path, good).unwrap();
    }
    with_keys().start().await.registered("ada").await;
}
