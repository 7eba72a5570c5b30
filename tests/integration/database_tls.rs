//! TLS to a PostgreSQL server that refuses connections without it.

use crate::support::{Authority, SOON, TestApp, TestDatabase, until};
use staunch::postgres::{
    DataDir, DataFolder, Durability, EmbeddedPostgres, PostgresConfig, Purpose,
};
use staunch::store::{Admin, parse_url};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tokio_postgres::NoTls;

struct Server {
    postgres: EmbeddedPostgres,
    /// A separate loopback address, because every server uses the same port.
    address: String,
    folder: tempfile::TempDir,
    authority: Authority,
}

fn put(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

impl Server {
    /// An embedded server whose PostgreSQL programs are wrapped to turn TLS on.
    async fn start() -> Self {
        let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
        let at = |name: &str| folder.path().join(name);
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let issued = authority.issue(&["db.example", "localhost"], 2100);
        put(&at("root.crt"), &authority.pem, 0o644);
        put(&at("server.crt"), &issued.chain, 0o644);
        put(&at("server.key"), &issued.key, 0o644);
        put(&at("other.crt"), &Authority::new().pem, 0o644);
        let hba = "local all all trust\nhostssl all all 127.0.0.0/8 scram-sha-256\n";
        put(&at("pg_hba.conf"), hba, 0o644);

        let database = TestDatabase::create_empty().await;
        let query = "SELECT setting FROM pg_config WHERE name = 'BINDIR'";
        let real: String = database.connect().await.query_one(query, &[]).await.unwrap().get(0);
        let random = uuid::Uuid::new_v4().into_bytes();
        let address = format!("127.{}.{}.{}", random[0], random[1], random[2] | 1);
        let top = folder.path().display();
        let postgres = format!(
            "#!/bin/sh\n\
             if [ \"$1\" = -D ]; then umask 077; for file in server.crt server.key pg_hba.conf; do\n\
             cat {top}/$file > \"$2/$file\" || exit 1; done; fi\n\
             exec {real}/postgres \"$@\" -c ssl=on -c listen_addresses={address}\n"
        );
        fs::create_dir(at("bin")).unwrap();
        fs::set_permissions(at("bin"), fs::Permissions::from_mode(0o755)).unwrap();
        put(&at("bin/postgres"), &postgres, 0o755);
        put(&at("bin/initdb"), &format!("#!/bin/sh\nexec {real}/initdb \"$@\"\n"), 0o755);
        for program in ["bin/postgres", "bin/initdb"] {
            // A child of another test may still hold the file open for writing (ETXTBSY).
            until("the wrapper can be executed", SOON, async || {
                let run = std::process::Command::new(at(program)).arg("--version").output();
                run.is_ok()
            })
            .await;
        }

        let data = DataFolder::open(&DataDir::Set(at("data")), Purpose::Database).await.unwrap();
        let config = PostgresConfig {
            bin_dir: Some(at("bin")),
            offline: true,
            pool_max: 20,
            durability: Durability::None,
        };
        let postgres = EmbeddedPostgres::start(&config, data).await.unwrap();
        Self { postgres, address, folder, authority }
    }

    /// The settings to reach the server under that name, with these options.
    fn url(&self, host: &str, options: &str) -> String {
        let config = self.postgres.connect_config();
        let port = config.get_ports()[0];
        let password = String::from_utf8(config.get_password().unwrap().to_vec()).unwrap();
        format!(
            "host={host} hostaddr={} port={port} user={} password='{password}' dbname={} {options}",
            self.address,
            config.get_user().unwrap(),
            config.get_dbname().unwrap()
        )
    }

    fn root(&self, name: &str) -> String {
        format!("sslrootcert={}", self.folder.path().join(name).display())
    }

    /// Tries to connect; returns the error, if any.
    async fn refusal(&self, host: &str, options: &str) -> Option<String> {
        let endpoint = parse_url(&self.url(host, options)).unwrap();
        match Admin::open(&endpoint).await {
            Ok(admin) => {
                admin.close().await;
                None
            }
            Err(error) => Some(error.to_string()),
        }
    }

    async fn stop(self) {
        self.postgres.stop().await;
    }
}

#[tokio::test]
async fn each_sslmode_checks_what_it_promises() {
    let server = Server::start().await;
    let (right, other) = (server.root("root.crt"), server.root("other.crt"));
    for (host, options) in [
        ("elsewhere", "sslmode=require".to_owned()),
        ("elsewhere", String::new()),
        ("elsewhere", format!("sslmode=require {right}")),
        ("elsewhere", format!("sslmode=verify-ca {right}")),
        ("db.example", format!("sslmode=verify-full {right}")),
        ("db.example", format!("sslmode=verify-full channel_binding=require {right}")),
        // The server's certificate serves as its own root.
        ("db.example", format!("sslmode=verify-full {}", server.root("server.crt"))),
    ] {
        assert_eq!(server.refusal(host, &options).await, None, "{host} {options}");
    }
    for (host, options, why) in [
        ("elsewhere", format!("sslmode=verify-full {right}"), "invalid peer certificate"),
        (
            "elsewhere",
            format!("sslmode=verify-full {}", server.root("server.crt")),
            "invalid peer certificate",
        ),
        ("db.example", format!("sslmode=verify-full {other}"), "invalid peer certificate"),
        ("db.example", format!("sslmode=verify-ca {other}"), "invalid peer certificate"),
        ("db.example", format!("sslmode=require {other}"), "invalid peer certificate"),
        ("db.example", "sslmode=verify-full".to_owned(), "invalid peer certificate"),
        ("db.example", "sslmode=disable".to_owned(), "no encryption"),
    ] {
        let told = server.refusal(host, &options).await.unwrap_or_default();
        assert!(told.contains(why) && told.contains(host), "{host} {options}: {told}");
        assert!(!told.contains("password"), "{told}");
    }
    server.stop().await;
}

#[tokio::test]
async fn every_database_connection_uses_tls() {
    let server = Server::start().await;
    let options = format!("sslmode=verify-full {}", server.root("root.crt"));
    let url = server.url("localhost", &options);
    let app = TestApp::builder().set("STAUNCH_DATABASE_URL", url).start().await;
    app.register("ada").await;
    app.anonymous().log_in("ada").await;
    app.ready().await;
    app.listening().await;
    let (client, connection) = server.postgres.connect_config().connect(NoTls).await.unwrap();
    let watching = tokio::spawn(connection);
    let query = "SELECT count(*), count(*) FILTER (WHERE ssl) FROM pg_stat_activity
         JOIN pg_stat_ssl USING (pid) WHERE client_addr IS NOT NULL";
    let row = client.query_one(query, &[]).await.unwrap();
    let (all, with_tls): (i64, i64) = (row.get(0), row.get(1));
    // The pool's, the readiness probe's and the listener's.
    assert!(all >= 3 && all == with_tls, "{with_tls} of {all}");
    drop((client, app));
    watching.await.unwrap().ok();
    let _ = &server.authority;
    server.stop().await;
}
