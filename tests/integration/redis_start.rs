//! What a node checks of its store of shared counters before it starts.

use crate::redis_server::RedisServer;
use crate::support::TestApp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Why a node with this store does not start.
async fn refusal(url: String) -> String {
    let builder =
        TestApp::builder().set("STAUNCH_REDIS_URL", url).set("STAUNCH_REDIS_DEADLINE", "10s");
    builder.try_start().await.err().expect("the node does not start").to_string()
}

#[tokio::test]
async fn a_wrong_password_user_or_database_is_named() {
    let Some(redis) = RedisServer::start(&["--requirepass", "s3cret"]).await else { return };
    for (query, reason) in [
        ("", "NOAUTH"),
        ("?pass=wr0ng", "the server refused the connection"),
        ("?user=ada&pass=s3cret", "the server refused the connection"),
        ("?pass=s3cret&db=99", "the server refused the connection"),
    ] {
        let said = refusal(format!("{}{query}", redis.url())).await;
        assert!(
            said.starts_with("STAUNCH_REDIS_URL: ") && said.contains(reason),
            "{query}: {said}"
        );
        assert!(!said.contains("s3cret") && !said.contains("wr0ng"), "{said}");
    }
    let url = format!("{}?pass=s3cret&db=3", redis.url());
    let app = TestApp::builder().set("STAUNCH_REDIS_URL", url).start().await;
    app.registered("ada").await;
}

#[tokio::test]
async fn a_replica_and_a_user_without_permission_are_refused() {
    let Some(redis) = RedisServer::start(&[]).await else { return };
    let () = redis.run("ACL SETUSER limited on >s3cret ~staunch:* +@all -eval -evalsha").await;
    let said = refusal(format!("{}?user=limited&pass=s3cret", redis.url())).await;
    assert!(said.contains("no permissions to run the 'evalsha' command"), "{said}");
    // What docs/operations.md grants is enough.
    let acl = "ACL SETUSER staunch on >s3cret resetkeys ~staunch:* resetchannels -@all \
               +eval +evalsha +time +get +set +del +pexpire +hget +hset +hdel +hlen +hexists +hgetall \
               +hello +select";
    let () = redis.run(&acl.split_whitespace().collect::<Vec<_>>().join(" ")).await;
    let url = format!("{}?user=staunch&pass=s3cret", redis.url());
    let app = TestApp::builder()
        .set("STAUNCH_REDIS_URL", url)
        .set("STAUNCH_REDIS_DEADLINE", "10s")
        .set("STAUNCH_LIMIT_LOGIN", "10/h")
        .start()
        .await;
    app.registered("ada").await;
    assert_eq!(app.metric(r#"staunch_redis_calls_total{result="error"}"#).await, 0.0);
    assert!(app.metric(r#"staunch_redis_calls_total{result="success"}"#).await > 0.0);
    let () = redis.run("REPLICAOF 127.0.0.1 1").await;
    let said = refusal(redis.url()).await;
    assert!(said.contains("the server is a replica"), "{said}");
}

/// A server that answers HELLO with this text and knows no other command. Returns its address.
async fn impostor(hello: &'static str) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 4_096];
                while let Ok(1..) = stream.read(&mut buffer).await {
                    let asked = String::from_utf8_lossy(&buffer);
                    // Each command starts with its number of words.
                    let commands = asked.matches("\r\nCLIENT\r\n").count();
                    let unknown = "-ERR unknown command\r\n".repeat(commands);
                    let known = if asked.contains("\r\nHELLO\r\n") { hello } else { "" };
                    let answer = format!("{unknown}{known}");
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                    buffer = [0; 4_096];
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn an_old_server_is_named_with_its_version() {
    let hello = "*6\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n6.0.16\r\n\
                 $4\r\nrole\r\n$6\r\nmaster\r\n";
    let said = refusal(format!("redis://{}", impostor(hello).await)).await;
    assert!(said.contains("redis 6.0.16 is too old: use Redis 6.2 or Valkey 7.2"), "{said}");
    let unknown = "-ERR unknown command `HELLO`\r\n";
    let said = refusal(format!("redis://{}", impostor(unknown).await)).await;
    assert!(said.contains("the server is too old"), "{said}");
}
