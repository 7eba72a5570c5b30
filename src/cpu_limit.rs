//! The CPU limit of the cgroup that the process runs in, as set for a container.
//!
//! A limit of 1.5 cores allows 150 ms of CPU time in each period of 100 ms (CFS bandwidth control).
//! When it is used up, the kernel stops every thread of the group until the next period. The limit
//! of a parent group applies as well, so the tightest one counts.
//!
//! Both versions of cgroups are read. A system may mount both; the CPU controller is in one of them.

use rustix::time::{ClockId, clock_gettime};
use std::fs::read_to_string;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A limit, and where the kernel reports its use.
#[derive(Clone, Debug)]
pub struct CpuLimit {
    cores: f64,
    period: Duration,
    /// The file with the counters of throttling.
    stat: PathBuf,
    usage: Usage,
}

/// Where the CPU time of the group is found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Usage {
    /// In microseconds, in a line of the file with the counters (version 2).
    Stat,
    /// In nanoseconds, in a separate file (version 1).
    File(PathBuf),
    /// Nowhere. That of the process stands in for it.
    Process,
}

/// How often and how long the kernel has stopped the group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttling {
    /// Periods in which the group ran.
    pub periods: u64,
    /// Periods in which it used up its limit.
    pub throttled: u64,
    /// Time for which its threads were stopped, summed over the cores.
    pub time: Duration,
}

/// The folders of a group and of its parents, innermost first.
struct Group {
    mount_point: PathBuf,
    folder: PathBuf,
}

impl CpuLimit {
    /// The limit of this process. `None`: there is none, or it cannot be read.
    pub fn of_this_process() -> Option<Self> {
        Self::read(Path::new("/proc/self"))
    }

    fn read(process: &Path) -> Option<Self> {
        let groups = read_to_string(process.join("cgroup")).ok()?;
        let mounts = read_to_string(process.join("mountinfo")).ok()?;
        let v1 = Group::find(&groups, &mounts, "cpu").and_then(|group| {
            let accounting = Group::find(&groups, &mounts, "cpuacct");
            // Another group's usage is of no use.
            let same = groups_path(&groups, "cpu") == groups_path(&groups, "cpuacct");
            tightest(&group, v1_quota, |folder| {
                let within = folder.strip_prefix(&group.mount_point).ok();
                match (accounting.as_ref().filter(|_| same), within) {
                    (Some(accounting), Some(within)) => {
                        Usage::File(accounting.mount_point.join(within).join("cpuacct.usage"))
                    }
                    _ => Usage::Process,
                }
            })
        });
        let v2 = Group::find(&groups, &mounts, "")
            .and_then(|group| tightest(&group, v2_quota, |_| Usage::Stat));
        [v1, v2].into_iter().flatten().min_by(|one, other| one.cores.total_cmp(&other.cores))
    }

    /// A limit without files, for tests.
    #[cfg(test)]
    pub(crate) fn of(cores: f64) -> Self {
        let period = Duration::from_millis(100);
        Self { cores, period, stat: PathBuf::new(), usage: Usage::Process }
    }

    /// The CPU time that may be used per time: 1.5 is that of one and a half cores.
    pub fn cores(&self) -> f64 {
        self.cores
    }

    /// The length of a period, most often 100 ms.
    pub fn period(&self) -> Duration {
        self.period
    }

    /// The CPU time that counted against the limit so far.
    ///
    /// It includes that of other processes of the group, such as an embedded PostgreSQL.
    pub fn used(&self) -> Duration {
        let used = match &self.usage {
            Usage::Stat => {
                read_to_string(&self.stat).ok().and_then(|text| field(&text, "usage_usec"))
            }
            Usage::File(file) => number(file).map(|nanos| nanos / 1_000),
            Usage::Process => None,
        };
        used.map_or_else(|| cpu_time(ClockId::ProcessCPUTime), Duration::from_micros)
    }

    /// The kernel's counters of throttling. Zeros if they cannot be read.
    pub fn throttling(&self) -> Throttling {
        read_to_string(&self.stat).map(|text| Throttling::parse(&text)).unwrap_or_default()
    }
}

impl Throttling {
    fn parse(stat: &str) -> Self {
        let time_v2 = field(stat, "throttled_usec").map(Duration::from_micros);
        let time_v1 = field(stat, "throttled_time").map(Duration::from_nanos);
        Self {
            periods: field(stat, "nr_periods").unwrap_or(0),
            throttled: field(stat, "nr_throttled").unwrap_or(0),
            time: time_v2.or(time_v1).unwrap_or_default(),
        }
    }
}

/// The cores that this process may run on, whatever its CPU limit.
pub fn cores() -> usize {
    // The standard library's number is rounded down to the limit.
    #[cfg(target_os = "linux")]
    if let Ok(cores) = rustix::thread::sched_getaffinity(None) {
        return cores.count() as usize;
    }
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The CPU time that the calling thread has used.
pub fn thread_cpu_time() -> Duration {
    cpu_time(ClockId::ThreadCPUTime)
}

fn cpu_time(clock: ClockId) -> Duration {
    Duration::try_from(clock_gettime(clock)).unwrap_or_default()
}

impl Group {
    /// Finds the group for a controller of version 1, or that of version 2 if its name is empty.
    ///
    /// `groups` and `mounts` are the texts of `/proc/self/cgroup` and `/proc/self/mountinfo`.
    fn find(groups: &str, mounts: &str, controller: &str) -> Option<Self> {
        let path = Path::new(groups_path(groups, controller)?);
        let (root, mount_point) = mounts.lines().find_map(|line| mount(line, controller))?;
        // In a container, the mount may begin at the group itself, or far from the path shown.
        let within = path.strip_prefix(root).unwrap_or_else(|_| Path::new(""));
        let folder = Path::new(mount_point).join(within);
        let folder = if folder.is_dir() { folder } else { mount_point.into() };
        Some(Self { mount_point: mount_point.into(), folder })
    }

    fn folders(&self) -> impl Iterator<Item = &Path> {
        self.folder.ancestors().take_while(|folder| folder.starts_with(&self.mount_point))
    }
}

/// The path of the process's group: the third field of `3:cpu,cpuacct:/path` or `0::/path`.
fn groups_path<'a>(groups: &'a str, controller: &str) -> Option<&'a str> {
    groups.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|name| name == controller).then_some(path)
    })
}

/// Root and mount point of the hierarchy with that controller, from a line of `mountinfo`.
fn mount<'a>(line: &'a str, controller: &str) -> Option<(&'a str, &'a str)> {
    let (before, after) = line.split_once(" - ")?;
    let mut after = after.split(' ');
    let (kind, options) = (after.next()?, after.nth(1)?);
    let found = match kind {
        "cgroup2" => controller.is_empty(),
        "cgroup" => options.split(',').any(|option| option == controller),
        _ => false,
    };
    let mut before = before.split(' ').skip(3);
    found.then_some((before.next()?, before.next()?))
}

/// The tightest limit of the group and its parents.
fn tightest(
    group: &Group,
    quota: impl Fn(&Path) -> Option<(f64, Duration)>,
    usage: impl Fn(&Path) -> Usage,
) -> Option<CpuLimit> {
    let limits = group.folders().filter_map(|folder| {
        let (cores, period) = quota(folder)?;
        Some(CpuLimit { cores, period, stat: folder.join("cpu.stat"), usage: usage(folder) })
    });
    limits.min_by(|one, other| one.cores.total_cmp(&other.cores))
}

/// Cores and period of a folder of version 2. `None`: no limit.
fn v2_quota(folder: &Path) -> Option<(f64, Duration)> {
    let text = read_to_string(folder.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    cores_of(quota.parse().ok()?, period.parse().ok()?)
}

/// Cores and period of a folder of version 1, where a quota of -1 is no limit.
fn v1_quota(folder: &Path) -> Option<(f64, Duration)> {
    cores_of(number(&folder.join("cpu.cfs_quota_us"))?, number(&folder.join("cpu.cfs_period_us"))?)
}

fn cores_of(quota_us: u64, period_us: u64) -> Option<(f64, Duration)> {
    #[expect(clippy::cast_precision_loss, reason = "times far below 2^52 us")]
    let cores = quota_us as f64 / period_us as f64;
    (quota_us > 0 && period_us > 0).then_some((cores, Duration::from_micros(period_us)))
}

fn number(file: &Path) -> Option<u64> {
    read_to_string(file).ok()?.trim().parse().ok()
}

/// The number after a name at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let mut fields = text.lines().filter_map(|line| line.split_once(' '));
    fields.find(|(found, _)| *found == name)?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A system with cgroups: files of `/proc/self`, and folders with their files.
    struct System(tempfile::TempDir);

    impl System {
        /// `mounts`: kind, root, folder and options of each hierarchy.
        fn new(groups: &str, mounts: &[(&str, &str, &str, &str)]) -> Self {
            let system = Self(tempfile::tempdir().unwrap());
            system.write("proc/cgroup", groups);
            let line = |(kind, root, folder, options): &(&str, &str, &str, &str)| {
                let point = system.0.path().join(folder);
                let point = point.display();
                format!(
                    "32 31 0:29 {root} {point} rw,relatime shared:9 - {kind} {kind} rw,{options}"
                )
            };
            let lines: Vec<_> = mounts.iter().map(line).collect();
            let other = "23 1 254:0 / / rw,relatime - ext4 /dev/vda rw";
            system.write("proc/mountinfo", &format!("{other}\n{}\n", lines.join("\n")));
            system
        }

        fn write(&self, file: &str, text: &str) {
            let path = self.0.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn limit(&self) -> Option<CpuLimit> {
            CpuLimit::read(&self.0.path().join("proc"))
        }

        fn cores(&self) -> Option<f64> {
            self.limit().map(|limit| limit.cores())
        }
    }

    fn v2(path: &str) -> System {
        System::new(&format!("0::{path}\n"), &[("cgroup2", "/", "fs", "nsdelegate")])
    }

    fn v1(path: &str, root: &str) -> System {
        let groups = format!("4:memory:/\n3:cpu,cpuacct:{path}\n0::/\n");
        System::new(
            &groups,
            &[("cgroup", root, "memory", "memory"), ("cgroup", root, "cpu", "cpu,cpuacct")],
        )
    }

    #[test]
    fn quota_and_period_of_version_2_give_the_cores() {
        let system = v2("/");
        for (text, cores) in [
            ("150000 100000\n", Some(1.5)),
            ("25000 50000\n", Some(0.5)),
            ("max 100000\n", None),
            ("", None),
            ("0 100000\n", None),
            ("100000 0\n", None),
            ("soon 100000\n", None),
        ] {
            system.write("fs/cpu.max", text);
            assert_eq!(system.cores(), cores, "{text}");
        }
        assert_eq!(v2("/").cores(), None, "the root group has no such file");
    }

    #[test]
    fn a_quota_of_minus_one_in_version_1_is_no_limit() {
        let system = v1("/", "/");
        system.write("cpu/cpu.cfs_period_us", "100000\n");
        for (quota, cores) in [("-1\n", None), ("250000\n", Some(2.5)), ("0\n", None)] {
            system.write("cpu/cpu.cfs_quota_us", quota);
            assert_eq!(system.cores(), cores, "{quota}");
        }
    }

    #[test]
    fn the_tightest_limit_of_the_group_and_its_parents_counts() {
        let system = v2("/pod/app");
        system.write("fs/pod/app/cpu.max", "300000 100000");
        assert_eq!(system.cores(), Some(3.0));
        system.write("fs/pod/cpu.max", "100000 50000");
        let limit = system.limit().unwrap();
        assert_eq!((limit.cores(), limit.period()), (2.0, Duration::from_millis(50)));
        system.write("fs/pod/app/cpu.max", "max 100000");
        system.write("fs/pod/app/cpu.stat", "usage_usec 7\n");
        system.write("fs/pod/cpu.stat", "usage_usec 9000\n");
        assert_eq!(system.limit().unwrap().used(), Duration::from_millis(9), "of the same group");
    }

    #[test]
    fn a_container_sees_its_group_at_the_mount_point() {
        // Its path on the host is shown, but only the group itself is mounted.
        let system = v1("/docker/ab12", "/docker/ab12");
        system.write("cpu/cpu.cfs_quota_us", "50000");
        system.write("cpu/cpu.cfs_period_us", "100000");
        assert_eq!(system.cores(), Some(0.5));
        let elsewhere = v2("/docker/ab12");
        elsewhere.write("fs/cpu.max", "50000 100000");
        assert_eq!(elsewhere.cores(), Some(0.5), "the path does not exist here");
    }

    #[test]
    fn the_controller_is_in_one_of_two_mounted_versions() {
        let mounts = [("cgroup2", "/", "unified", "nsdelegate"), ("cgroup", "/", "cpu", "cpu")];
        let system = System::new("2:cpuacct:/\n1:cpu:/app\n0::/app\n", &mounts);
        system.write("cpu/app/cpu.cfs_quota_us", "100000");
        system.write("cpu/app/cpu.cfs_period_us", "100000");
        assert_eq!(system.cores(), Some(1.0));
        assert_eq!(system.limit().unwrap().usage, Usage::Process, "accounted in another group");
        let none = System::new("", &[]);
        assert_eq!(none.cores(), None);
    }

    #[test]
    fn usage_and_throttling_are_read_in_the_units_of_both_versions() {
        let system = v2("/");
        system.write("fs/cpu.max", "100000 100000");
        let stat = "usage_usec 2500\nnr_periods 90\nnr_throttled 8\nthrottled_usec 1500\n";
        system.write("fs/cpu.stat", stat);
        let limit = system.limit().unwrap();
        let throttling =
            Throttling { periods: 90, throttled: 8, time: Duration::from_micros(1_500) };
        assert_eq!(limit.used(), Duration::from_micros(2_500));
        assert_eq!(limit.throttling(), throttling);

        let system = v1("/", "/");
        system.write("cpu/cpu.cfs_quota_us", "100000");
        system.write("cpu/cpu.cfs_period_us", "100000");
        system.write("cpu/cpuacct.usage", "2500000\n");
        system.write("cpu/cpu.stat", "nr_periods 90\nnr_throttled 8\nthrottled_time 1500000\n");
        let limit = system.limit().unwrap();
        assert_eq!(limit.used(), Duration::from_micros(2_500));
        assert_eq!(limit.throttling(), throttling);
    }

    #[test]
    fn the_time_of_the_process_stands_in_for_a_usage_that_cannot_be_read() {
        let limit = CpuLimit::of(1.0);
        assert!(limit.used() >= thread_cpu_time());
        assert_eq!(limit.throttling(), Throttling::default());
    }
}
