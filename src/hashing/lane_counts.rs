//! The lane counts that calibration measures, by the size of the first-level data cache.

use std::fs;
use std::path::Path;

use super::kernel::LANES_MAX;

/// The most lanes whose states (4.1 KiB each) are worth measuring with a cache of 32 KiB.
const LANES_MAX_32_KIB: usize = 8;

/// Lane counts to measure on this machine, ascending.
pub(super) fn lane_counts() -> Vec<usize> {
    let bytes = data_cache_bytes(Path::new("/sys/devices/system/cpu/cpu0/cache"));
    (1..=lanes_max(bytes)).collect()
}

/// The cache holds 12 states from 48 KiB on. `None` is an unknown size.
fn lanes_max(cache_bytes: Option<u64>) -> usize {
    if cache_bytes.is_some_and(|bytes| bytes >= 48 * 1024) { LANES_MAX } else { LANES_MAX_32_KIB }
}

/// The size of the first-level data cache, as Linux lists it under `caches`.
fn data_cache_bytes(caches: &Path) -> Option<u64> {
    fs::read_dir(caches).ok()?.flatten().find_map(|cache| {
        let read = |name| fs::read_to_string(cache.path().join(name)).ok();
        if read("level")?.trim() != "1" || read("type")?.trim() != "Data" {
            return None;
        }
        let kib: u64 = read("size")?.trim().strip_suffix('K')?.parse().ok()?;
        Some(kib * 1024)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_level_cache_of_48_kib_allows_twelve_lanes() {
        let caches = tempfile::tempdir().unwrap();
        for (index, [level, kind, size]) in
            [["1", "Instruction", "64K"], ["1", "Data", "48K"], ["2", "Unified", "2048K"]]
                .into_iter()
                .enumerate()
        {
            let cache = caches.path().join(format!("index{index}"));
            fs::create_dir(&cache).unwrap();
            for (name, text) in [("level", level), ("type", kind), ("size", size)] {
                fs::write(cache.join(name), format!("{text}\n")).unwrap();
            }
        }
        assert_eq!(data_cache_bytes(caches.path()), Some(48 * 1024));
        assert_eq!(lanes_max(Some(48 * 1024)), 12);
        assert_eq!(lanes_max(Some(32 * 1024)), 8);
    }

    #[test]
    fn an_unknown_cache_size_allows_eight_lanes() {
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(data_cache_bytes(empty.path()), None);
        assert_eq!(data_cache_bytes(&empty.path().join("missing")), None);
        assert_eq!(lanes_max(None), 8);
    }
}
