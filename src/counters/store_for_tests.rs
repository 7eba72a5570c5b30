//! A store whose scripts run at the time that a test gives, for unit tests.

use super::config::Endpoint;
use super::connection::Connection;
use super::keys::{Keys, LoginKeys};
use super::lockout::{self, Change, LockoutRules, LoginAct, LoginState};
use super::scripts::{Script, ScriptCall};
use crate::SOON;
use std::net::IpAddr;
use std::time::Duration;

#[path = "../../tests/redis_server/mod.rs"]
#[allow(dead_code, reason = "other tests use the rest of it")]
mod redis_server;

pub(crate) struct TestStore {
    connection: Connection,
    script: Script,
    _server: redis_server::RedisServer,
}

impl TestStore {
    /// Starts a server. `None` if none is installed.
    pub(crate) async fn start() -> Option<Self> {
        let server = redis_server::RedisServer::start(&[]).await?;
        let endpoint = Endpoint::parse(&server.url()).unwrap();
        let (connection, _) = Connection::open(&endpoint, SOON).await.unwrap();
        Some(Self { connection, script: Script::lockout_at_given_time(), _server: server })
    }

    pub(crate) fn keys(&self, name: &str, block: IpAddr) -> LoginKeys {
        Keys::new("test:", &[7; 32]).login(name, block)
    }

    pub(crate) async fn login(
        &self,
        rules: &LockoutRules,
        keys: &LoginKeys,
        act: LoginAct,
        may_claim: bool,
        now_ms: u64,
    ) -> LoginState {
        let call = lockout::login(&self.script, rules, keys, act, may_claim);
        LoginState::of(&self.run(call, now_ms).await).unwrap()
    }

    /// Restores the block of the login itself.
    pub(crate) async fn restore(
        &self,
        rules: &LockoutRules,
        keys: &LoginKeys,
        age: Duration,
        now_ms: u64,
    ) {
        let call = lockout::restore(&self.script, rules, keys, &[(keys.clone(), age)]);
        self.run(call, now_ms).await;
    }

    pub(crate) async fn release(&self, rules: &LockoutRules, keys: &LoginKeys, now_ms: u64) {
        self.run(lockout::change(&self.script, rules, keys, Change::Release), now_ms).await;
    }

    async fn run(&self, mut call: ScriptCall<'_>, now_ms: u64) -> Vec<i64> {
        call.arguments.push(now_ms.to_string());
        self.connection.run(&call).await.unwrap()
    }
}
