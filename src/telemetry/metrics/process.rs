//! What this process takes of its machine, read from /proc when someone asks. Elsewhere than on Linux there is no /proc
//! and the series are absent.

use opentelemetry::metrics::Meter;

/// Registers the gauges under the names that Prometheus clients use.
pub(super) fn observe(meter: &Meter) {
    let _memory = meter
        .u64_observable_gauge("process.resident_memory")
        .with_unit("By")
        .with_description("Resident memory of this process")
        .with_callback(|observer| {
            if let Some(bytes) = resident_bytes() {
                observer.observe(bytes, &[]);
            }
        })
        .build();
    let _files = meter
        .u64_observable_gauge("process.open_fds")
        .with_description("File descriptors that this process has open")
        .with_callback(|observer| {
            if let Some(number) = open_files() {
                observer.observe(number, &[]);
            }
        })
        .build();
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

fn open_files() -> Option<u64> {
    u64::try_from(std::fs::read_dir("/proc/self/fd").ok()?.count()).ok()
}
