//! How fast the embedded queue is on this disk, without HTTP: accepts, then leases with settlements, then both at once.
//!
//! ```text
//! cargo run --release -p kvern-queue-sqlite --example throughput -- [JOBS] [DIRECTORY] [accept|keys|work|both|open] [KEYED]
//! ```
//!
//! 64 tasks, 256-byte inputs, 20-byte results. KEYED jobs with a key each are in the queue before anything is measured;
//! `open` only opens what an earlier run left. The directory must not be on tmpfs: the numbers are about fsync.

#![expect(clippy::print_stdout, reason = "a benchmark prints its numbers")]

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kvern_core::{Attempt, FunctionName, Next, Outcome, UnixMs, limits};
use kvern_queue::{Ask, Clock, Idempotency, Leased, NewJob, Payload, Queue, Settlement, Want};
use kvern_queue_sqlite::{CommitStats, Options, SqliteQueue};

type Failed = Box<dyn std::error::Error + Send + Sync>;
type Outcomes = Result<(), Failed>;
type Durations = Result<Vec<Duration>, Failed>;

const TASKS: usize = 64;
const INPUT_BYTES: usize = 256;

fn main() -> Outcomes {
    let mut arguments = std::env::args().skip(1);
    let jobs = arguments.next().map_or(Ok(300_000), |jobs| jobs.parse())?;
    let dir = arguments.next().map_or_else(|| PathBuf::from("target/throughput"), PathBuf::from);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let only = arguments.next().unwrap_or_default();
    let keyed = arguments.next().map_or(Ok(0), |keyed| keyed.parse())?;
    runtime.block_on(run(jobs, &dir, &only, keyed))
}

async fn run(jobs: usize, dir: &Path, only: &str, keyed: usize) -> Outcomes {
    let wants = |what: &str| only.is_empty() || only.split(',').any(|wanted| wanted == what);
    if only == "open" {
        return open_again(dir).await;
    }
    if dir.exists() {
        std::fs::remove_dir_all(dir)?;
    }
    let queue = SqliteQueue::open(Options { dir: dir.to_owned(), clock: Clock::system() })?;
    println!("{jobs} jobs in {}, opened at {:.1} MiB", dir.display(), resident_mib());
    println!(
        "{:<22} {:>9} {:>8} {:>8} {:>8} {:>8} {:>9} {:>9} {:>8} {:>8}",
        "", "jobs/s", "p50 ms", "p99 ms", "max ms", "commits", "per commit", "commit us", "cpu us", "MiB"
    );
    if keyed > 0 {
        measure("before: with keys", keyed, &queue, submit_all(&queue, "before", keyed, Some(jobs))).await?;
    }
    if wants("accept") {
        measure("accept", jobs, &queue, submit_all(&queue, "first", jobs, None)).await?;
    }
    if wants("work") {
        measure("lease and settle", jobs, &queue, work_all(&queue, "first", jobs, 1)).await?;
    }
    if wants("keys") {
        measure("accept with keys", jobs, &queue, submit_all(&queue, "keyed", jobs, Some(0))).await?;
        measure("work, 16 at once", jobs, &queue, work_all(&queue, "keyed", jobs, 16)).await?;
    }
    if wants("both") {
        measure("both at once", jobs, &queue, both(&queue, jobs)).await?;
    }
    queue.close().await;
    drop(queue);
    open_again(dir).await
}

/// What an earlier run left.
async fn open_again(dir: &Path) -> Outcomes {
    let began = Instant::now();
    let queue = SqliteQueue::open(Options { dir: dir.to_owned(), clock: Clock::system() })?;
    println!("opened again in {:.1} ms at {:.1} MiB", began.elapsed().as_secs_f64() * 1e3, resident_mib());
    let cpu = cpu_time();
    tokio::time::sleep(Duration::from_secs(5)).await;
    println!("idle: {:.2} ms of CPU in 5 s", cpu_time().saturating_sub(cpu).as_secs_f64() * 1e3);
    queue.close().await;
    Ok(())
}

async fn both(queue: &Arc<SqliteQueue>, jobs: usize) -> Durations {
    let (accepted, worked) = tokio::join!(submit_all(queue, "mixed", jobs, None), work_all(queue, "mixed", jobs, 1));
    let mut took = accepted?;
    took.extend(worked?);
    Ok(took)
}

async fn measure(what: &str, jobs: usize, queue: &SqliteQueue, work: impl Future<Output = Durations>) -> Outcomes {
    let (before, cpu, began) = (queue.commits(), cpu_time(), Instant::now());
    let mut took = work.await?;
    let (seconds, cpu) = (began.elapsed().as_secs_f64(), cpu_time().saturating_sub(cpu));
    let CommitStats { commits, operations, took: fsync, .. } = queue.commits();
    let commits = commits - before.commits;
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!(
        "{what:<22} {:>9.0} {:>8.2} {:>8.2} {:>8.1} {commits:>8} {:>10.1} {:>9.0} {:>8.1} {:>8.1}",
        jobs as f64 / seconds,
        at(0.5),
        at(0.99),
        at(1.0),
        (operations - before.operations) as f64 / commits as f64,
        (fsync - before.took).as_secs_f64() * 1e6 / commits as f64,
        cpu.as_secs_f64() * 1e6 / jobs as f64,
        resident_mib(),
    );
    Ok(())
}

/// With keys from the given one on, if any.
async fn submit_all(queue: &Arc<SqliteQueue>, function: &str, jobs: usize, first_key: Option<usize>) -> Durations {
    let function: FunctionName = function.parse()?;
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..TASKS {
        let (queue, function, next) = (Arc::clone(queue), function.clone(), Arc::clone(&next));
        tasks.spawn(async move {
            let mut took = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                if at >= jobs {
                    return Ok::<_, kvern_queue::Error>(took);
                }
                let job = job(&function, at as u64, first_key.map(|first| (first + at) as u64));
                let began = Instant::now();
                queue.submit(job).await?;
                // A sample, so that the memory measured is the queue's and not the measure's.
                if at.is_multiple_of(sample_every(jobs)) {
                    took.push(began.elapsed());
                }
            }
        });
    }
    let mut all = Vec::new();
    while let Some(took) = tasks.join_next().await {
        all.extend(took??);
    }
    Ok(all)
}

async fn work_all(queue: &Arc<SqliteQueue>, function: &str, jobs: usize, at_once: usize) -> Durations {
    let function: FunctionName = function.parse()?;
    let done = Arc::new(AtomicUsize::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..TASKS {
        let (queue, function, done) = (Arc::clone(queue), function.clone(), Arc::clone(&done));
        tasks.spawn(async move {
            let mut took = Vec::new();
            while done.load(Ordering::Relaxed) < jobs {
                let ask = Ask {
                    worker: "bench".to_owned(),
                    wants: vec![Want { function: function.clone(), slots: at_once }],
                    max: at_once,
                    wait: Duration::from_millis(100),
                };
                let began = Instant::now();
                let settle = queue.lease(ask).await?.into_iter().map(|leased| settle(&queue, leased));
                let settled = futures_join(settle).await?;
                done.fetch_add(settled, Ordering::Relaxed);
                took.extend(std::iter::repeat_n(began.elapsed(), settled));
            }
            Ok::<_, kvern_queue::Error>(took)
        });
    }
    let mut all = Vec::new();
    while let Some(took) = tasks.join_next().await {
        all.extend(took??);
    }
    Ok(all)
}

/// Polls all of them together; how many there were.
async fn futures_join(
    settle: impl Iterator<Item = impl Future<Output = Result<(), kvern_queue::Error>>>,
) -> Result<usize, kvern_queue::Error> {
    let mut waiting: Vec<_> = settle.map(Box::pin).collect();
    let count = waiting.len();
    std::future::poll_fn(|cx| {
        let mut at = 0;
        while at < waiting.len() {
            match waiting[at].as_mut().poll(cx) {
                std::task::Poll::Ready(Ok(())) => drop(waiting.swap_remove(at)),
                std::task::Poll::Ready(Err(error)) => return std::task::Poll::Ready(Err(error)),
                std::task::Poll::Pending => at += 1,
            }
        }
        if waiting.is_empty() { std::task::Poll::Ready(Ok(count)) } else { std::task::Poll::Pending }
    })
    .await
}

async fn settle(queue: &SqliteQueue, leased: Leased) -> Result<(), kvern_queue::Error> {
    let started_at = leased.job.started_at.unwrap_or_default();
    let attempt = Attempt {
        number: leased.lease.token().attempt,
        outcome: Outcome::Succeeded.as_str().to_owned(),
        started_at,
        finished_at: UnixMs(started_at.0 + 1),
        version: Some("0123456789ab".to_owned()),
        error: None,
    };
    let result = Some(("application/json".to_owned(), Payload::Inline(Bytes::from_static(b"{\"answer\":1234567890}"))));
    let settlement =
        Settlement::Finish { outcome: Outcome::Succeeded, next: Next::Succeed, result, attempt, log: Bytes::new() };
    queue.settle(leased.lease, settlement).await.map(drop)
}

fn job(function: &FunctionName, at: u64, key: Option<u64>) -> NewJob {
    let mut input = vec![0; INPUT_BYTES];
    for (chunk, count) in input.chunks_exact_mut(8).zip(at * 1000..) {
        chunk.copy_from_slice(&count.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    }
    let half = |key, half: u8| u128::from(BuildHasherDefault::<DefaultHasher>::new().hash_one((key, half)));
    let key = key.map(|key| (half(key, 0) << 64 | half(key, 1)).to_le_bytes());
    NewJob {
        function: function.clone(),
        input: Payload::Inline(input.into()),
        content_type: Some("application/json".to_owned()),
        idempotency: key.map(|key| Idempotency { key, body: key }),
        not_before: None,
        expires_at: None,
        priority: limits::PRIORITY_DEFAULT,
        tags: Vec::new(),
        max_queued: u64::MAX,
    }
}

/// One time in so many is kept.
fn sample_every(jobs: usize) -> usize {
    jobs.div_ceil(100_000)
}

fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.unwrap_or_default() / 1024.0
}

/// User and system time of this process.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
