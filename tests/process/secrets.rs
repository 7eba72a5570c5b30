//! Secrets do not appear in the log, metrics or answers, nor in the server's memory after use.

use crate::support::{Reply, Server, folder, in_memory, run, staunch, until};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeSet;

const AUDIENCE: &str = "an-audience-that-stays-in-memory";

/// A unique password: 24 random characters after a digit that differs for each secret.
fn random(first: char) -> String {
    let bytes: [u8; 24] = std::array::from_fn(|_| random_byte());
    let rest = bytes.iter().map(|byte| char::from(b'a' + byte % 26));
    std::iter::once(first).chain(rest).collect()
}

fn random_byte() -> u8 {
    uuid::Uuid::new_v4().as_bytes()[0]
}

fn tokens(reply: &Reply) -> (String, String) {
    assert_eq!(reply.status, 200, "{}", reply.body);
    let json = reply.json();
    let text = |name: &str| json[name].as_str().unwrap().to_owned();
    (text("access_token"), text("refresh_token"))
}

// Reliability: F9.
#[tokio::test]
async fn passwords_and_client_secrets_are_gone_after_use() {
    let top = folder();
    let settings = [("STAUNCH_LOG", "trace"), ("STAUNCH_JWT_AUDIENCE", AUDIENCE)];
    let server = Server::start(top.path(), &settings).await;
    let mut add = staunch(top.path(), &["client", "add", "billing"]);
    add.env("STAUNCH_DATA_DIR", top.path().join("data"));
    let added = run(add).await.out;
    let value = |name: &str| {
        let line = added.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    let (client, client_secret) = (value("client_id"), value("client_secret"));

    let first = random('1');
    let [wrong, mistyped, second, third] = ['2', '3', '4', '5'].map(random);
    // A password that serde_json must unescape into its own buffer, and one that the form decodes.
    let escaped = format!(r"{}\u00e9", third);
    let third = format!("{third}é");
    let mut answers = Vec::new();

    let account = |password: &str| {
        format!(r#"{{"email":"ada@example.com","username":"ada","password":"{password}"}}"#)
    };
    const REGISTER: &str = "/api/v1/auth/register";
    const TOKEN: &str = "/api/v1/auth/token";
    const CHANGE: &str = "/api/v1/auth/password";
    let made = server.post_json(REGISTER, "", &account(&first)).await.unwrap();
    assert_eq!(made.status, 201, "{}", made.body);
    answers.push(made);
    answers.push(server.post_json(REGISTER, "", &account(&mistyped)).await.unwrap());
    // Truncated in the middle of the text, and with an unknown member.
    let cut = account(&mistyped).replace(r#""}"#, "");
    answers.push(server.post_json(REGISTER, "", &cut).await.unwrap());
    let more = account("short").replace('}', &format!(r#","more":["{mistyped}"]}}"#));
    answers.push(server.post_json(REGISTER, "", &more).await.unwrap());
    let form = |password: &str| format!("username=ada&password={password}");
    let reply = server.post_form(TOKEN, &form(&wrong)).await.unwrap();
    assert_eq!(reply.status, 401);
    answers.push(reply);
    answers.push(server.post_form(TOKEN, &form(&format!("{wrong}&x=%zz"))).await.unwrap());
    let (access, refresh) = tokens(&server.post_form(TOKEN, &form(&first)).await.unwrap());

    let bearer = format!("Authorization: Bearer {access}\r\n");
    let change =
        |from: &str, to: &str| format!(r#"{{"current_password":"{from}","new_password":"{to}"}}"#);
    for (from, to, status) in
        [(&first, &second, 204), (&wrong, &second, 401), (&second, &escaped, 204)]
    {
        let reply = server.post_json(CHANGE, &bearer, &change(from, to)).await.unwrap();
        assert_eq!(reply.status, status, "{}", reply.body);
        answers.push(reply);
    }
    let encoded = third.replace('é', "%C3%A9");
    tokens(&server.post_form(TOKEN, &form(&encoded)).await.unwrap());
    let next = server.refresh(&refresh).await.unwrap();
    let (_, next) = tokens(&next);

    const INTROSPECT: &str = "/api/v1/auth/introspect";
    let basic = STANDARD.encode(format!("{client}:{client_secret}"));
    let header = format!("Authorization: Basic {basic}\r\n");
    let body = format!("token={access}");
    let reply = server.post_form_with(INTROSPECT, &header, &body).await.unwrap();
    assert_eq!(reply.json()["active"], true);
    answers.push(reply);
    let body = format!("token={access}&client_id={client}&client_secret={client_secret}");
    answers.push(server.post_form(INTROSPECT, &body).await.unwrap());
    let body = format!("token={access}&client_id={client}&client_secret={mistyped}");
    answers.push(server.post_form(INTROSPECT, &body).await.unwrap());
    answers.push(server.get("/metrics").await.unwrap());

    let secrets: Vec<&str> =
        [&first, &wrong, &mistyped, &second, &encoded, &third, &client_secret, &basic, &next]
            .map(String::as_str)
            .to_vec();
    let database = std::fs::read_to_string(top.path().join("data/postgres/password")).unwrap();
    for secret in secrets.iter().copied().chain([database.trim()]) {
        for answer in &answers {
            assert!(!answer.body.contains(secret), "{secret} is in {}", answer.body);
        }
        assert!(!server.log().contains(secret), "{secret} is in the log");
    }
    // Control: the reader finds a text that is in memory.
    assert_eq!(in_memory(server.pid(), &[AUDIENCE]), BTreeSet::from([AUDIENCE]));
    // A task may still be dropping its connection when the client has its answer.
    until("no secret is in the server's memory", async || {
        let found = in_memory(server.pid(), &secrets);
        println!("in memory: {found:?}");
        found.is_empty()
    })
    .await;
    server.stop().await;
}

// Reliability: F8.
#[tokio::test]
async fn no_request_field_can_forge_a_log_line() {
    let top = folder();
    let settings = [("STAUNCH_LOG", "trace"), ("STAUNCH_LOG_FORMAT", "json")];
    let server = Server::start(top.path(), &settings).await;
    let forged = r#"x\n{\"level\":\"forged\"}\r\n\u001b[2J"#;
    let plain = "x%0A%7B%22level%22%3A%22forged%22%7D%0D%0A%1B[2J";
    let json = |member: &str| format!(r#"{{"{member}":"{forged}"}}"#);
    let odd = "User-Agent: x\u{1b}[2J{\"level\":\"forged\"}\r\nX-Request-Id: x{\"level\":1}\r\n\
               X-Forwarded-For: {\"level\":\"forged\"}\r\ntraceparent: 00-{\"level\"\r\n";
    for (path, members) in [
        ("register", &["email", "username", "password"][..]),
        ("refresh", &["refresh_token"]),
        ("logout", &["refresh_token"]),
    ] {
        for member in members {
            let path = format!("/api/v1/auth/{path}");
            server.post_json(&path, odd, &json(member)).await;
        }
    }
    for body in [
        format!("username={plain}&password={plain}"),
        format!("grant_type={plain}"),
        format!("grant_type=refresh_token&refresh_token={plain}"),
        format!("{plain}={plain}"),
    ] {
        server.post_form_with("/api/v1/auth/token", "", &body).await.unwrap();
    }
    let client = format!("token={plain}&client_id={plain}&client_secret={plain}");
    server.post_form("/api/v1/auth/introspect", &client).await.unwrap();
    server.get(&format!("/{plain}?{plain}")).await.unwrap();
    let log = server.stop().await;
    let mut requests = 0;
    for line in log.lines() {
        let value: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_ne!(value["level"], "forged", "{line}");
        assert!(!line.contains('\u{1b}'), "{line:?}");
        requests += usize::from(value["message"] == "request");
    }
    assert!(requests >= 6, "{log}");
}
