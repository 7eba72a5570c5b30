//! Processes of the machine, found in /proc.

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use std::fs;
use std::path::Path;

pub(crate) fn send(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}

/// Whether a process runs and is not a zombie.
pub(crate) fn runs(pid: u32) -> bool {
    let exists = test_kill_process(Pid::from_raw(pid.cast_signed()).unwrap())
        != Err(rustix::io::Errno::SRCH);
    let zombie = fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").unwrap().1.starts_with('Z'));
    exists && !zombie
}

/// Every process with this folder in its command line or as working directory.
pub(crate) fn processes_on(path: &Path) -> Vec<u32> {
    let wanted = path.canonicalize().unwrap();
    let numbered = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<u32>().ok());
    numbered
        .filter(|pid| *pid != std::process::id() && runs(*pid))
        .filter(|pid| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).into_owned();
            let place = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
            command.contains(wanted.to_str().unwrap()) || place.starts_with(&wanted)
        })
        .collect()
}

pub(crate) fn is_guard(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/cmdline"))
        .is_ok_and(|command| command.contains("staunch-postgres-guard"))
}

pub(crate) fn children_of(parent: u32) -> Vec<u32> {
    let parent = parent.to_string();
    let entries = fs::read_dir("/proc").unwrap();
    entries
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
                let after = stat.rsplit_once(") ").unwrap().1.to_owned();
                after.split(' ').nth(1) == Some(&parent)
            })
        })
        .collect()
}
