//! A process that starts PostgreSQL and that a test can kill.

use crate::support::start_with;
use staunch::postgres::Durability;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const FOLDER_VARIABLE: &str = "EMBEDDED_POSTGRES_TEST_FOLDER";

const DURABLE_VARIABLE: &str = "EMBEDDED_POSTGRES_TEST_DURABLE";

/// This test binary, started again to run only [`starter`]: a process that a test can kill.
pub(crate) struct Starter {
    process: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Starter {
    pub(crate) fn spawn(path: &Path, durability: Durability) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "starter::starter", "--ignored", "--nocapture"])
            .env(FOLDER_VARIABLE, path)
            .env_remove(DURABLE_VARIABLE)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        if durability == Durability::Full {
            command.env(DURABLE_VARIABLE, "1");
        }
        let mut process = command.spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self { process, output }
    }

    /// Waits until PostgreSQL is ready; returns its pid.
    pub(crate) fn ready(&mut self) -> u32 {
        loop {
            let mut line = String::new();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "it ended");
            if let Some((_, pid)) = line.split_once("READY ") {
                return pid.trim().parse().unwrap();
            }
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Kills the process and reads its output, which ends only if no child holds the pipe.
    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
    }
}

/// Not a test: the process that other tests start and kill.
#[tokio::test]
#[ignore = "started by other tests"]
async fn starter() {
    let Some(path) = std::env::var_os(FOLDER_VARIABLE) else {
        return;
    };
    let durability = match std::env::var_os(DURABLE_VARIABLE) {
        Some(_) => Durability::Full,
        None => Durability::None,
    };
    let server = start_with(Path::new(&path), durability).await;
    println!("READY {}", server.pid().unwrap());
    std::future::pending::<()>().await;
    drop(server);
}
