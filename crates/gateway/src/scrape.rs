//! What is read at each scrape instead of being counted: the queue's own counts, the disk's fsyncs, our memory.

use std::fmt;
use std::sync::Arc;

use kvern_core::State;
use kvern_queue::Queue;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// A histogram that somebody else keeps.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HistogramValues {
    /// Upper bound in seconds and count of each bucket, not cumulative; the last bound is [`f64::INFINITY`].
    pub buckets: Vec<(f64, u64)>,
    /// Sum of all values, in seconds.
    pub sum: f64,
    /// How many there are.
    pub count: u64,
}

/// Reads a histogram.
pub type HistogramReading = Arc<dyn Fn() -> HistogramValues + Send + Sync>;

/// The readings of one server.
pub(crate) struct Scrape {
    queue: Arc<dyn Queue>,
    fsync: Option<HistogramReading>,
}

// === impl Scrape ===

impl Scrape {
    pub(crate) fn new(queue: Arc<dyn Queue>, fsync: Option<HistogramReading>) -> Self {
        Self { queue, fsync }
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = self.queue.stats();
        let mut depth = encoder.encode_descriptor("kvern_queue_depth", "Jobs by state", None, MetricType::Gauge)?;
        for (name, counts) in &stats.functions {
            for state in State::ALL {
                let labels = [("function", name.as_str()), ("state", state.as_str())];
                depth.encode_family(&labels)?.encode_gauge(&gauge(counts.of(state)))?;
            }
        }
        let mut running =
            encoder.encode_descriptor("kvern_jobs_running", "Attempts that run now", None, MetricType::Gauge)?;
        for (name, counts) in &stats.functions {
            running.encode_family(&[("function", name.as_str())])?.encode_gauge(&gauge(counts.running))?;
        }
        let mut kept = encoder.encode_descriptor(
            "kvern_finished_bytes",
            "Bytes of kept finished jobs",
            None,
            MetricType::Gauge,
        )?;
        for (name, counts) in &stats.functions {
            kept.encode_family(&[("function", name.as_str())])?.encode_gauge(&gauge(counts.finished_bytes))?;
        }
        if let Some(fsync) = &self.fsync {
            let HistogramValues { buckets, sum, count } = fsync();
            encoder
                .encode_descriptor("kvern_fsync_seconds", "Time of each fsync", None, MetricType::Histogram)?
                .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        if let Some(bytes) = resident_bytes() {
            encoder
                .encode_descriptor("process_resident_memory_bytes", "Resident memory", None, MetricType::Gauge)?
                .encode_gauge(&gauge(bytes))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrape")
    }
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Resident memory of this process, where the kernel tells it.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}
