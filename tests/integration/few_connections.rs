//! A database that allows fewer connections than the pool may have.

use crate::support::{PASSWORD, SOON, TestApp, TestDatabase, until};
use futures_util::future::join_all;
use std::sync::Arc;

const REFUSED: &str = r#"staunch_db_connections_opened_total{result="error"}"#;

/// A role with a connection limit, and a database that it can use.
struct LimitedRole {
    name: String,
    database: Arc<TestDatabase>,
}

impl LimitedRole {
    async fn create(connections: u32) -> Self {
        let database = Arc::new(TestDatabase::create().await);
        let name = format!("{}_role", database.name);
        let statements = format!(
            "CREATE ROLE {name} LOGIN CONNECTION LIMIT {connections} PASSWORD '{name}';
             GRANT ALL ON SCHEMA public TO {name};
             GRANT ALL ON ALL TABLES IN SCHEMA public TO {name};
             GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {name}"
        );
        database.connect().await.batch_execute(&statements).await.unwrap();
        Self { name, database }
    }

    async fn start(&self, pool_min: &str) -> TestApp {
        TestApp::builder()
            .on(&self.database)
            .set("STAUNCH_DATABASE_URL", self.database.url_as(&self.name, &self.name))
            .set("STAUNCH_DB_POOL_MIN", pool_min)
            .set("STAUNCH_DB_POOL_MAX", "50")
            .start()
            .await
    }

    /// Drops the role, because roles belong to the whole server and would outlive the database.
    async fn drop(self) {
        let statements = format!("DROP OWNED BY {0}; DROP ROLE {0}", self.name);
        self.database.connect().await.batch_execute(&statements).await.unwrap();
    }
}

/// Logs several clients in concurrently, several times each. Every login must succeed.
async fn log_in_everywhere(apps: &[TestApp], clients: usize) {
    let clients = (0..clients).map(async |number| {
        let client = apps[number % apps.len()].anonymous();
        for _ in 0..5 {
            client.login("ada", PASSWORD).await.assert_status(200);
        }
    });
    join_all(clients).await;
}

// Case F10 of the field list: a role's connection limit.
#[tokio::test]
async fn every_login_succeeds_under_a_roles_connection_limit() {
    let role = LimitedRole::create(8).await;
    let app = role.start("5").await;
    app.register("ada").await;
    log_in_everywhere(std::slice::from_ref(&app), 32).await;
    until("the pool reaches the limit", SOON, async || {
        log_in_everywhere(std::slice::from_ref(&app), 32).await;
        app.metric(REFUSED).await >= 1.0
    })
    .await;
    let refused = app.metric(REFUSED).await;
    log_in_everywhere(std::slice::from_ref(&app), 32).await;
    let more = app.metric(REFUSED).await - refused;
    assert!(more <= 5.0, "{more} attempts: the pauses do not grow");
    app.readiness().await.assert_status(200);
    drop(app);
    role.drop().await;
}

// Case F10 of the field list: several nodes share the connections that the database allows.
#[tokio::test]
async fn several_nodes_sharing_few_database_connections_serve_every_login() {
    let role = LimitedRole::create(12).await;
    let apps = [role.start("1").await, role.start("1").await, role.start("1").await];
    apps[0].register("ada").await;
    log_in_everywhere(&apps, 32).await;
    log_in_everywhere(&apps, 32).await;
    for app in &apps {
        app.readiness().await.assert_status(200);
    }
    drop(apps);
    role.drop().await;
}

#[tokio::test]
async fn a_start_accepts_fewer_connections_than_the_minimum_and_opens_more_later() {
    let role = LimitedRole::create(4).await;
    let app = role.start("10").await;
    app.register("ada").await;
    until("the minimum is refused", SOON, async || app.metric(REFUSED).await >= 1.0).await;
    log_in_everywhere(std::slice::from_ref(&app), 8).await;
    let more = format!("ALTER ROLE {} CONNECTION LIMIT 20", role.name);
    app.db().await.batch_execute(&more).await.unwrap();
    app.backends(10).await;
    log_in_everywhere(std::slice::from_ref(&app), 8).await;
    drop(app);
    role.drop().await;
}
