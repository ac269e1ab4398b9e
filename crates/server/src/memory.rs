//! Holds: how much memory this machine has for us.

use std::fs;

/// Bytes of memory, or of what a container may have of it where that is less (proc(5), cgroups version 2). `None` where the
/// system does not say.
pub fn total() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().as_deref().and_then(of_meminfo);
    // `max`, without a limit, is no number.
    let group = fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse::<u64>().ok());
    match (machine, group) {
        (Some(machine), Some(group)) => Some(group.min(machine)),
        (machine, group) => machine.or(group),
    }
}

fn of_meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_says_how_much_it_has() {
        let text = "MemFree:  5 kB\nMemTotal:       24589100 kB\nMemAvailable: 3 kB\n";
        assert_eq!(of_meminfo(text), Some(24_589_100 * 1_024));
        assert_eq!(of_meminfo("MemTotal: much"), None);
        assert!(total().is_some_and(|bytes| bytes > 1 << 28));
    }
}
