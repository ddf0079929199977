//! One random life of a worker.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kvern_core::limits::{INTERRUPTIONS_MAX, LEASE_TTL, STRIKES_MAX};
use kvern_core::{FailureCode, Function, JobId, RetryPolicy, State, UnixMs};
use kvern_queue::{Clock, Filter, MemoryQueue, NewJob, Queue};
use kvern_runtime::fake::Act;
use kvern_runtime::{Fake, Input, Invoke};
use kvern_worker::{Drained, Parts, Settings, Silent, Worker};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::dice::Dice;
use super::faulty::FaultyQueue;
use super::judge::{Judge, LATE};
use crate::support::{LONG, call, changed, function, turn_hands};

/// The input under which every process dies.
const POISON: &[u8] = b"poison";
/// Most attempts that a function allows here.
const ATTEMPTS_MAX: u32 = 3;
/// More than a log of these has.
const LOG_BYTES: usize = 1 << 20;
const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];
/// Nothing in here takes longer to end by itself.
const ENDS_WITHIN: Duration = Duration::from_secs(900);

pub(crate) struct Life {
    dice: Dice,
    clock: Clock,
    queue: Arc<MemoryQueue>,
    fake: Fake,
    judge: Judge,
    functions: Mutex<Vec<Function>>,
    jobs: Mutex<Vec<JobId>>,
    /// One reload at a time: a stale list would bring an old version back whose instances are still stopping.
    reloading: tokio::sync::Mutex<()>,
    /// Whether the queue cannot be reached.
    is_away: Arc<AtomicBool>,
    /// Whether everything may be waited for at the end.
    is_patient: bool,
}

impl Life {
    pub(crate) fn new(seed: u64) -> Self {
        let dice = Dice::new(seed);
        let clock = Clock::manual(UnixMs(1_700_000_000_000));
        let queue = Arc::new(MemoryQueue::new(clock.clone()));
        let fake = Fake::new();
        let judge = Judge::new(fake.clone(), Arc::clone(&queue), dice.clone());
        let functions: Vec<Function> = NAMES[..dice.between(1, 4) as usize].iter().map(|n| draw(n, &dice)).collect();
        for function in &functions {
            let dice = dice.clone();
            fake.set_warm(function.name.as_str(), dice.percent(75));
            fake.on(
                function.name.as_str(),
                move |_, input| if is_poison(input) { Act::crash("poisoned") } else { act(&dice) },
            );
        }
        let is_patient = dice.percent(60);
        let (functions, jobs) = (Mutex::new(functions), Mutex::default());
        let (reloading, is_away) = (tokio::sync::Mutex::default(), Arc::default());
        Self { dice, clock, queue, fake, judge, functions, jobs, reloading, is_away, is_patient }
    }

    /// Lives it, and gives the promises that were broken.
    pub(crate) async fn live(self: &Arc<Self>) -> Vec<String> {
        let dice = &self.dice;
        let hands = turn_hands(self.clock.clone(), Duration::from_millis(50));
        let faulty = dice.percent(40);
        let queue = FaultyQueue {
            inner: Arc::clone(&self.queue),
            dice: dice.clone(),
            judge: self.judge.clone(),
            faults: if faulty { 5 } else { 0 },
            settles_take: Duration::ZERO,
            is_full: Arc::default(),
            is_scarce: Arc::default(),
            is_low: Arc::default(),
            is_away: Arc::clone(&self.is_away),
            slowness: Duration::from_millis(u64::from(dice.between(0, 3)) * 50),
        };
        let chance = dice.clone();
        let settings = Settings {
            slots: if dice.percent(50) { dice.between(1, 5) as usize } else { 256 },
            calls_waiting_max: 3,
            drain_time: Duration::from_secs(u64::from(dice.between(1, 20))),
            chance: Arc::new(move || chance.fraction()),
            ..Settings::default()
        };
        let ears = Arc::new(Silent);
        let worker = Arc::new(Worker::new(Parts {
            queue: Arc::new(queue),
            runtime: Arc::new(self.judge.clone()),
            clock: self.clock.clone(),
            name: "simulated".to_owned(),
            settings,
            observer: Arc::clone(&ears) as _,
        }));
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(Arc::clone(&worker).run(shutdown.clone()));
        let loaded = worker.set_functions(self.current()).await;
        assert!(loaded.iter().all(|loaded| loaded.result.is_ok()));

        let mut broken = Vec::new();
        let mut others = JoinSet::new();
        for _ in 0..dice.between(5, 40) {
            sleep(dice.up_to(Duration::from_secs(1))).await;
            self.event(&worker, &mut others).await;
        }
        if self.is_patient {
            broken.extend(self.wait_for_all(&worker).await);
        }
        shutdown.cancel();
        let drained = timeout(LONG, running).await;
        let answers = async { while others.join_next().await.is_some() {} };
        if timeout(LONG, answers).await.is_err() {
            broken.push("calls or reloads never ended".to_owned());
        }
        self.judge.has_fallen_silent().await;
        hands.abort();
        broken.extend(judge_drain(drained.map(|drained| drained.expect("no panic")).ok()));
        broken.extend(self.judge_jobs().await);
        broken.extend(self.judge.broken());
        drop(worker);
        if Arc::strong_count(&ears) > 1 {
            broken.push("somebody still holds the worker".to_owned());
        }
        broken
    }

    /// What became of the jobs.
    pub(crate) async fn records(&self) -> String {
        let jobs = self.jobs.lock().expect("no panic").clone();
        let mut records = String::new();
        for id in jobs {
            records += &format!("{:?}\n", self.queue.get(id).await);
        }
        records
    }

    /// Something happens.
    async fn event(self: &Arc<Self>, worker: &Arc<Worker>, others: &mut JoinSet<()>) {
        let dice = &self.dice;
        let functions = self.current();
        let Some(function) = dice.pick(&functions) else { return };
        let name = function.name.as_str();
        match dice.between(0, 100) {
            0..40 => self.submit(function, dice.between(1, 10)).await,
            40..50 => self.cancel_or_retry().await,
            50..60 => self.judge.kill_instances(&function.name),
            60..65 => self.fake.refuse_starts(name, dice.between(1, 4), "no start today"),
            65..70 => self.fake.starts_take(name, dice.up_to(Duration::from_secs(3))),
            70..73 => self.reboot().await,
            73..75 => self.jump(),
            75..77 => self.go_away(others).await,
            77..90 => {
                let (worker, call) = (Arc::clone(worker), call(name, "call"));
                let patience = dice.up_to(Duration::from_secs(20));
                others.spawn(async move {
                    // The caller goes away after its own time, or has its answer.
                    let _ = timeout(patience, worker.call(call)).await;
                });
            }
            _ => {
                let (life, worker) = (Arc::clone(self), Arc::clone(worker));
                others.spawn(async move { life.reload(&worker).await });
            }
        }
    }

    async fn submit(&self, function: &Function, count: u32) {
        for _ in 0..count {
            let now = self.clock.now();
            let late = self.dice.percent(10).then(|| now.after(self.dice.up_to(Duration::from_secs(5))));
            let job = NewJob {
                function: function.name.clone(),
                input: bytes::Bytes::from_static(if self.dice.percent(3) { POISON } else { b"input" }).into(),
                content_type: None,
                idempotency: None,
                not_before: late,
                expires_at: self.dice.percent(5).then(|| now.after(Duration::from_secs(8))),
                priority: u8::try_from(self.dice.between(0, 10)).unwrap_or(0),
                tags: Vec::new(),
                max_queued: 100_000,
            };
            let id = self.queue.submit(job).await.expect("accepted").id;
            self.jobs.lock().expect("no panic").push(id);
        }
    }

    async fn cancel_or_retry(&self) {
        let jobs = self.jobs.lock().expect("no panic").clone();
        let Some(id) = self.dice.pick(&jobs) else { return };
        // Each refuses jobs in the wrong state.
        let _ = if self.dice.percent(70) { self.queue.cancel(*id).await } else { self.queue.retry(*id).await };
    }

    /// The queue dies and comes back: all leases are lost.
    async fn reboot(&self) {
        self.excuse_all_running().await;
        self.queue.reboot();
    }

    /// The queue cannot be reached, as a rule for longer than a lease stands: it runs out, and the job runs again while the
    /// worker does not know.
    async fn go_away(self: &Arc<Self>, others: &mut JoinSet<()>) {
        if self.is_away.swap(true, Ordering::Relaxed) {
            return;
        }
        self.excuse_all_running().await;
        let (life, time) = (Arc::clone(self), LEASE_TTL.mul_f64(0.5 + 2.0 * self.dice.fraction()));
        others.spawn(async move {
            sleep(time).await;
            // Those whose lease was given as it went.
            life.excuse_all_running().await;
            life.is_away.store(false, Ordering::Relaxed);
        });
    }

    async fn excuse_all_running(&self) {
        let filter = Filter { states: vec![State::Running], ..Filter::default() };
        let page = self.queue.list(&filter, None, 500).await.expect("open");
        page.jobs.iter().for_each(|job| self.judge.excuse(job.id));
    }

    /// The wall clock goes forward or back. Leases know nothing of it, and nothing is forgotten that soon.
    fn jump(&self) {
        let (now, by) = (self.clock.now(), self.dice.up_to(Duration::from_secs(300)));
        let back = UnixMs(now.0.saturating_sub(u64::try_from(by.as_millis()).unwrap_or(0)));
        self.clock.jump_to(if self.dice.percent(50) { now.after(by) } else { back });
    }

    /// A new version, one that fails to load, or none of one function for a while.
    async fn reload(&self, worker: &Worker) {
        let _one_at_a_time = self.reloading.lock().await;
        let mut functions = self.current();
        let at = self.dice.between(0, u32::try_from(functions.len()).unwrap_or(1)) as usize;
        let name = functions[at].name.clone();
        match self.dice.between(0, 10) {
            0..2 => {
                functions.remove(at);
                worker.set_functions(functions).await;
                sleep(self.dice.up_to(Duration::from_secs(3))).await;
                // Not the same version: its old instances may still be stopping beside its new ones.
                functions = self.next_version(at);
            }
            2..4 => {
                self.fake.refuse_prepare(name.as_str(), Some("cannot be prepared"));
                worker.set_functions(self.next_version(at)).await;
                self.fake.refuse_prepare(name.as_str(), None);
            }
            _ => functions = self.next_version(at),
        }
        worker.set_functions(functions).await;
    }

    fn next_version(&self, at: usize) -> Vec<Function> {
        let mut functions = self.functions.lock().expect("no panic");
        let version = self.dice.between(0, u32::MAX).to_string();
        functions[at] = changed(functions[at].clone(), &version);
        functions.clone()
    }

    fn current(&self) -> Vec<Function> {
        self.functions.lock().expect("no panic").clone()
    }

    /// No more faults: everything must end.
    async fn wait_for_all(&self, worker: &Worker) -> Option<String> {
        for name in NAMES {
            self.fake.refuse_starts(name, 0, "");
        }
        let _last = self.reloading.lock().await;
        worker.set_functions(self.current()).await;
        let all_end = async {
            while self.queue.stats().functions.iter().any(|(_, counts)| counts.waiting() + counts.running > 0) {
                sleep(Duration::from_millis(500)).await;
            }
        };
        let ended = timeout(ENDS_WITHIN, all_end).await;
        ended.is_err().then(|| format!("jobs never ended: {:?}", self.queue.stats()))
    }

    async fn judge_jobs(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let jobs = self.jobs.lock().expect("no panic").clone();
        for id in jobs {
            let Ok(job) = self.queue.get(id).await else {
                broken.push(format!("{id} is lost"));
                continue;
            };
            if job.state == State::Running && !self.judge.is_excused(id) {
                broken.push(format!("{id} still runs"));
            }
            let log = self.queue.read_log(id, 0, LOG_BYTES).await.unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            if log.lines().any(|line| line.starts_with(LATE) && !line.ends_with(&id.to_string())) {
                broken.push(format!("{id} has late words of another job in its log: {log}"));
            }
            if job.tally.interruptions > 0 && !self.judge.is_excused(id) {
                broken.push(format!("{id} was interrupted without a cause"));
            }
            let tally = job.tally;
            if tally.strikes > STRIKES_MAX || tally.failures > ATTEMPTS_MAX || tally.interruptions > INTERRUPTIONS_MAX {
                broken.push(format!("{id} went on and on: {tally:?}"));
            }
            let successes = job.attempts.iter().filter(|attempt| attempt.outcome == "succeeded").count();
            if successes > usize::from(job.state == State::Succeeded) {
                broken.push(format!("{id} is {} after {successes} successes", job.state));
            }
        }
        broken
    }
}

fn judge_drain(drained: Option<Drained>) -> Option<String> {
    match drained {
        None => Some("run never returned".to_owned()),
        Some(drained) if !drained.is_clean() => Some(format!("{drained:?}")),
        Some(_) => None,
    }
}

fn draw(name: &str, dice: &Dice) -> Function {
    let mut function = function(name, dice.between(1, 5));
    function.scale.max = dice.between(1, function.concurrency + 1);
    function.scale.min = if dice.percent(30) { dice.between(0, function.scale.max + 1) } else { 0 };
    function.scale.idle = dice.up_to(Duration::from_secs(20));
    function.timeout = Duration::from_secs(u64::from(dice.between(1, 5)));
    let backoff = dice.up_to(Duration::from_secs(2));
    function.retry = RetryPolicy { attempts: dice.between(1, ATTEMPTS_MAX + 1), backoff, ..RetryPolicy::default() };
    function
}

fn is_poison(input: &Input) -> bool {
    matches!(input, Input::Bytes(bytes) if bytes == POISON)
}

fn act(dice: &Dice) -> Act {
    let act = match dice.between(0, 100) {
        0..70 => Act::echo(),
        70..80 => Act::fail(FailureCode::Exception, "no"),
        80..84 => Act::fail(FailureCode::Permanent, "never"),
        84..95 => Act::crash("killed by signal 11 (SIGSEGV)"),
        _ => Act::hang(),
    };
    let act = if dice.percent(30) { act.printing("some words\n") } else { act };
    if dice.percent(50) { act } else { act.after(dice.up_to(Duration::from_secs(4))) }
}
