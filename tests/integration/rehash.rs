//! A login upgrades its account's hash to the configured cost.

use crate::support::{PASSWORD, SOON, TestApp, until};

async fn stored(app: &TestApp) -> String {
    let row = app.db().await.query_one("SELECT password_hash FROM users", &[]).await.unwrap();
    row.get(0)
}

async fn store(app: &TestApp, hash: &str) {
    app.db().await.execute("UPDATE users SET password_hash = $1", &[&hash]).await.unwrap();
}

#[tokio::test]
async fn a_login_upgrades_an_old_hash_to_the_configured_cost() {
    let app = TestApp::start().await;
    app.register("ada").await;
    for (old, version) in [(5, bcrypt::Version::TwoA), (6, bcrypt::Version::TwoY)] {
        let hash = bcrypt::hash_with_salt(PASSWORD, old, [9; 16]).unwrap();
        let hash = hash.format_for_version(version);
        store(&app, &hash).await;
        app.anonymous()
            .login("ada", "Wrong-Pass123")
            .await
            .assert_problem(401, "credentials-rejected");
        assert_eq!(stored(&app).await, hash, "a wrong password changes nothing");
        app.anonymous().log_in("ada").await;
        until("rehashed", SOON, async || stored(&app).await.starts_with("$2b$04$")).await;
        app.anonymous().log_in("ada").await;
    }
}

// Reliability: F10.
#[tokio::test]
async fn a_planted_high_cost_hash_is_refused_and_not_computed() {
    let app = TestApp::start().await;
    app.register("ada").await;
    // The server computes costs up to two above the setting: 6 here.
    let planted = "$2b$31$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";
    for hash in [planted, &planted.replace("$31$", "$07$"), &planted.replace("$2b$31$", "$2x$04$")]
    {
        store(&app, hash).await;
        app.anonymous().login("ada", PASSWORD).await.assert_problem(401, "credentials-rejected");
        assert_eq!(stored(&app).await, hash);
    }
}
