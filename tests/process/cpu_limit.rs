//! Behind a CPU limit, in a real cgroup.
//!
//! The test needs the right to make a cgroup with a CPU controller, as root outside of a container
//! has it. Elsewhere it says what is missing and ends.

use crate::support::{PROGRAM, SOON, Server, folder, login, prepared};
use std::collections::HashMap;
use std::fs;
use std::io::Result;
use std::path::{Path, PathBuf};
use tokio::process::Command;
use tokio::time::Instant;

/// Moves the shell into the groups that are given after the program, and executes the program.
const IN_GROUPS: &str = r#"program=$1; shift; for group; do echo $$ > "$group/cgroup.procs" || exit 1; done; exec "$program""#;

/// A new cgroup: a folder for each hierarchy, that of the CPU controller first.
struct Group(Vec<PathBuf>);

impl Group {
    /// Makes a group with a limit in units of 100 ms of CPU time in 100 ms.
    fn new(cores: f64) -> Result<Self> {
        let (root, name) = (Path::new("/sys/fs/cgroup"), format!("staunch-{}", std::process::id()));
        let quota = format!("{:.0}", cores * 100_000.0);
        if root.join("cgroup.controllers").exists() {
            fs::write(root.join("cgroup.subtree_control"), "+cpu")?;
            let group = Self::make(vec![root.join(name)])?;
            group.write("cpu.max", &format!("{quota} 100000"))?;
            // On a busy machine too, the group gets what it may use.
            group.write("cpu.weight", "10000")?;
            Ok(group)
        } else {
            let folders = ["cpu", "cpuacct"].map(|controller| root.join(controller).join(&name));
            let group = Self::make(folders.to_vec())?;
            group.write("cpu.cfs_period_us", "100000")?;
            group.write("cpu.cfs_quota_us", &quota)?;
            group.write("cpu.shares", "100000")?;
            Ok(group)
        }
    }

    fn make(folders: Vec<PathBuf>) -> Result<Self> {
        let group = Self(Vec::new());
        folders.into_iter().try_fold(group, |mut group, folder| {
            // With both controllers in one hierarchy, the second folder is the first.
            if !folder.exists() {
                fs::create_dir(&folder)?;
                group.0.push(folder);
            }
            Ok(group)
        })
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        fs::write(self.0[0].join(file), text)
    }

    /// The command that runs the program in the group.
    fn command(&self, top: &Path) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", IN_GROUPS, "sh", PROGRAM]).args(&self.0);
        prepared(command, top)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let begun = Instant::now();
        for folder in &self.0 {
            // The kernel removes the ended processes from the group a little later.
            while fs::remove_dir(folder).is_err() && folder.exists() && begun.elapsed() < SOON {
                std::thread::yield_now();
            }
        }
    }
}

/// The metrics without labels.
async fn metrics(server: &Server) -> HashMap<String, f64> {
    let page = server.get("/metrics").await.unwrap().body;
    let number = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    page.lines().filter(|line| !line.starts_with('#')).filter_map(number).collect()
}

// Case C1 of the field list: hashing used up the limit, and then every thread stopped.
// Reliability: B1.
#[tokio::test]
async fn hashing_leaves_a_part_of_a_cpu_limit_unused() {
    let group = match Group::new(0.5) {
        Ok(group) => group,
        Err(error) => {
            eprintln!("skipped: no cgroup with a CPU limit can be made here: {error}");
            return;
        }
    };
    let top = folder();
    let file = fs::File::create(top.path().join("log")).unwrap();
    let settings = [("STAUNCH_BCRYPT_COST", "8")];
    let server = Server::start_by(group.command(top.path()), top.path(), &settings, file).await;
    assert_eq!(server.facts["threads"], 1);
    assert!(server.log().contains("hashing is paced"), "{}", server.log());
    assert_eq!(server.register("ada").await.unwrap().status, 201);
    let before = metrics(&server).await;
    assert!((before["staunch_cpu_limit_cores"] - 0.5).abs() < 1e-9);
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let address = server.address.clone();
            tokio::spawn(async move {
                for _ in 0..25 {
                    assert_eq!(login(&address, "ada").await.unwrap().status, 200);
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    let after = metrics(&server).await;
    let more = |name| after[name] - before[name];
    let periods = more("staunch_cpu_periods_total");
    let throttled = more("staunch_cpu_throttled_periods_total");
    assert!(periods >= 20.0, "too short a run to judge: {periods} periods");
    assert!(throttled <= periods / 4.0, "throttled in {throttled} of {periods} periods");
    server.stop().await;
}
