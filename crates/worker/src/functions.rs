//! Which functions this worker runs, and how a new version takes over from an old one.
//!
//! A version that cannot be prepared or started never replaces one that runs. A function that never had a version that
//! could be prepared keeps its lane all the same, so that its jobs fail with the reason instead of waiting for ever.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use kvern_core::{Failure, FailureCode, Function, FunctionName};
use kvern_runtime::{FunctionVersion, PrepareError, Progress, Version};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::attempt::{catch_panic, stop_instance};
use crate::lane::Serving;
use crate::observer::Observer;
use crate::station::start_instance;
use crate::worker::Shared;

/// Functions that are prepared at the same time: installing requirements takes disk and network.
const PREPARE_AT_ONCE: usize = 4;

/// The first pause after a preparation that found no room; it doubles from here.
const PREPARE_AGAIN: Duration = Duration::from_secs(1);
/// The longest pause after a preparation that found no room, unless it took longer itself: one that fills the disk for
/// minutes before it fails shall not do so all the time.
const PREPARE_AGAIN_MAX: Duration = Duration::from_secs(30);

/// What became of a function in a reload.
#[derive(Debug)]
pub struct Loaded {
    /// The function.
    pub function: FunctionName,
    /// The version that runs now, or why the new one does not. Then the old one goes on, if there was one.
    pub result: Result<Version, LoadError>,
}

/// Why a version does not run.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LoadError {
    /// It could not be prepared.
    #[error("{0}")]
    Prepare(PrepareError),
    /// It does not start.
    #[error("{0}")]
    Start(Failure),
}

/// Tells the steps of a preparation to the observer.
struct Steps(Arc<dyn Observer>);

/// See [`crate::Worker::set_functions`].
pub(crate) async fn set_functions(shared: &Arc<Shared>, functions: Vec<Function>) -> Vec<Loaded> {
    let mut reload = shared.reload.lock().await;
    *reload += 1;
    let number = *reload;
    let names: HashSet<FunctionName> = functions.iter().map(|function| function.name.clone()).collect();
    let (works, orders) = shared.floor(|floor, _| floor.keep_only(|name| names.contains(name)));
    drop(orders);
    shared.refuse(works);

    let permits = Arc::new(Semaphore::new(PREPARE_AT_ONCE));
    let mut loads = JoinSet::new();
    let mut results: Vec<(FunctionName, Option<Result<Version, LoadError>>)> = Vec::new();
    for (index, function) in functions.into_iter().enumerate() {
        results.push((function.name.clone(), None));
        shared.floor(|floor, _| floor.expect(Arc::new(function.clone())));
        let (shared, permits) = (Arc::clone(shared), Arc::clone(&permits));
        loads.spawn(async move {
            let _permit = permits.acquire().await.ok();
            (index, load(&shared, function, number).await)
        });
    }
    while let Some(joined) = loads.join_next().await {
        match joined {
            Ok((index, result)) => results[index].1 = Some(result),
            Err(error) => tracing::error!(%error, "a load panicked"),
        }
    }
    shared.versions_news.notify_one();
    let loaded = results.into_iter().map(|(function, result)| {
        let result = result.unwrap_or_else(|| panicked(String::new()).map_err(LoadError::Prepare));
        Loaded { function, result }
    });
    loaded.collect()
}

fn panicked<T>(words: String) -> Result<T, PrepareError> {
    let message = "the worker panicked while it loaded the function: a mistake in Kvern".to_owned();
    Err(PrepareError { message, detail: Some(words), is_shortage: false })
}

async fn load(shared: &Arc<Shared>, function: Function, reload: u64) -> Result<Version, LoadError> {
    match prepare(shared, &function).await {
        // Tracked, so that a drain waits for the instance that this may start.
        Ok(version) => shared.stations.track_future(take_over(shared, Arc::new(version))).await,
        Err(error) => {
            let told = fail(shared, &function.name, LoadError::Prepare(error.clone()));
            let has_old =
                matches!(shared.floor(|floor, _| floor.serving(&function.name)), Some((Serving::Version(_), _)));
            match has_old {
                true => {}
                false if error.is_shortage => wait_for_room(shared, Arc::new(function), reload),
                false => be_broken(shared, Arc::new(function), &error),
            }
            Err(told)
        }
    }
}

async fn prepare(shared: &Arc<Shared>, function: &Function) -> Result<FunctionVersion, PrepareError> {
    let steps = Steps(Arc::clone(&shared.observer));
    catch_panic(shared.runtime.prepare(function, &steps)).await.unwrap_or_else(panicked)
}

/// There is no version that could run: its jobs fail with the reason.
fn be_broken(shared: &Arc<Shared>, function: Arc<Function>, error: &PrepareError) {
    serve_none(shared, Serving::Broken(function, Arc::new(failure_of(error))));
}

/// There is no version that could run for want of room: its jobs wait until there is some.
fn wait_for_room(shared: &Arc<Shared>, function: Arc<Function>, reload: u64) {
    serve_none(shared, Serving::Preparing(Arc::clone(&function)));
    tokio::spawn(prepare_again(Arc::clone(shared), function, reload));
}

fn serve_none(shared: &Arc<Shared>, serving: Serving) {
    shared.floor(|floor, effects| {
        if floor.is_open() {
            floor.switch(shared, serving, false, None, effects);
        }
    });
}

/// Prepares a function until there is room for it, or another reload takes care of it.
async fn prepare_again(shared: Arc<Shared>, function: Arc<Function>, reload: u64) {
    let mut pause = PREPARE_AGAIN;
    loop {
        tokio::select! {
            () = sleep(pause) => {}
            () = shared.closing.cancelled() => return,
        }
        let now = shared.reload.lock().await;
        if *now != reload {
            return;
        }
        let begun = Instant::now();
        match prepare(&shared, &function).await {
            Err(error) if error.is_shortage => pause = (2 * pause).min(PREPARE_AGAIN_MAX).max(begun.elapsed()),
            Ok(version) => {
                // What it says to whoever asked for the reload is said.
                let _ = shared.stations.track_future(take_over(&shared, Arc::new(version))).await;
                return shared.versions_news.notify_one();
            }
            Err(error) => {
                fail(&shared, &function.name, LoadError::Prepare(error.clone()));
                return be_broken(&shared, function, &error);
            }
        }
    }
}

async fn take_over(shared: &Arc<Shared>, new: Arc<FunctionVersion>) -> Result<Version, LoadError> {
    let name = &new.function.name;
    shared.floor(|floor, _| floor.know(&new));
    let old = match shared.floor(|floor, _| floor.serving(name)) {
        Some((Serving::Version(old), _)) => Some(old),
        Some((Serving::Preparing(_) | Serving::Broken(..), _)) | None => None,
    };
    if old.as_ref().is_some_and(|old| old.version == new.version) {
        shared.floor(|floor, effects| floor.adjust(shared, Arc::clone(&new), effects));
        return Ok(new.version.clone());
    }
    let warm = shared.runtime.is_warm(&new);
    let mut instance = None;
    // Tried before it takes over from another, also if no instance of that lives just now.
    if warm && (new.function.scale.min > 0 || old.is_some()) {
        match start_instance(shared, &new, &shared.closing).await {
            Ok(started) => instance = Some(started),
            Err(failure) => {
                let error = fail(shared, name, LoadError::Start(failure));
                if old.is_some() {
                    return Err(error);
                }
            }
        }
    }
    let refused = shared.floor(|floor, effects| {
        if !floor.is_open() {
            return instance;
        }
        floor.switch(shared, Serving::Version(Arc::clone(&new)), warm, instance, effects);
        None
    });
    if let Some(instance) = refused {
        stop_instance(instance, shared.grace(), &shared.too_late).await;
    }
    shared.observer.version_switched(&new, old.as_ref().map(|old| &old.version));
    Ok(new.version.clone())
}

fn fail(shared: &Arc<Shared>, function: &FunctionName, error: LoadError) -> LoadError {
    let serving = shared.floor(|floor, _| floor.serving(function));
    let version = serving.as_ref().and_then(|(serving, _)| serving.version()).map(|version| &version.version);
    shared.observer.version_failed(function, &error, version);
    error
}

fn failure_of(error: &PrepareError) -> Failure {
    let failure = Failure::new(FailureCode::CannotStart, error.message.clone());
    match &error.detail {
        Some(detail) => failure.with_trace(detail.clone()),
        None => failure,
    }
}

// === impl Steps ===

impl Progress for Steps {
    fn step(&self, line: &str) {
        self.0.step(line);
    }
}
