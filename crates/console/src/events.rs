//! `GET /ui/events`: what changed, as server-sent events (WHATWG HTML, section 9.2).
//!
//! The first frame carries the latest jobs and the counts, each later one the jobs that moved since the last. Moves are
//! gathered for a quarter of a second, so a page gets at most four frames a second however many jobs run, and a quiet
//! server sends nothing but a comment now and then.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::Sse;
use axum::response::sse::{Event as Frame, KeepAlive};
use futures_util::Stream;
use kvern_core::JobId;
use kvern_queue::{Event, Filter, Watch, Watcher};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::Parts;

/// Jobs in the first frame, and at most in each later one: the latest.
pub const JOBS_PER_FRAME_MAX: usize = 100;
const GATHER: Duration = Duration::from_millis(250);
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Streams frames until the page closes.
pub async fn stream(State(parts): State<Parts>) -> Sse<impl Stream<Item = Result<Frame, Infallible>>> {
    // Subscribed before the snapshot is read, so that no move falls in between.
    let watcher = parts.queue.watch(Watch::All);
    let follower = Follower { parts, watcher, begun: false };
    let frames = futures_util::stream::unfold(follower, |mut follower| async move {
        let frame = follower.next().await?;
        Some((Ok(Frame::default().data(frame.to_string())), follower))
    });
    Sse::new(frames).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

struct Follower {
    parts: Parts,
    watcher: Watcher,
    begun: bool,
}

impl Follower {
    /// The next frame; none when the queue is gone.
    async fn next(&mut self) -> Option<Value> {
        if !self.begun {
            self.begun = true;
            return Some(self.snapshot().await);
        }
        match self.gather().await? {
            Some(ids) => Some(self.changes(&ids).await),
            None => Some(self.snapshot().await),
        }
    }

    /// Waits for a move, then a moment longer for others. None inside: some were missed.
    async fn gather(&mut self) -> Option<Option<Vec<JobId>>> {
        let mut ids = Vec::new();
        let mut missed = false;
        let mut take = |event| match event {
            Event::Moved { id, .. } => ids.push(id),
            Event::Missed => missed = true,
        };
        take(self.watcher.next().await?);
        let until = Instant::now() + GATHER;
        while let Ok(event) = tokio::time::timeout_at(until, self.watcher.next()).await {
            take(event?);
        }
        ids.sort_unstable_by(|a, b| b.cmp(a));
        ids.dedup();
        // More than a page shows: the latest are as good as a fresh look.
        Some((!missed && ids.len() <= JOBS_PER_FRAME_MAX).then_some(ids))
    }

    async fn changes(&self, ids: &[JobId]) -> Value {
        let mut jobs = Vec::with_capacity(ids.len());
        for id in ids {
            match self.parts.queue.get(*id).await {
                Ok(job) => jobs.push((self.parts.render)(&job)),
                // Forgotten between the event and the look.
                Err(_) => continue,
            }
        }
        json!({ "kind": "changes", "jobs": jobs, "stats": self.stats() })
    }

    async fn snapshot(&self) -> Value {
        let page = self.parts.queue.list(&Filter::default(), None, JOBS_PER_FRAME_MAX).await;
        let jobs: Vec<Value> =
            page.map(|page| page.jobs.iter().map(|job| (self.parts.render)(job)).collect()).unwrap_or_default();
        json!({ "kind": "snapshot", "jobs": jobs, "stats": self.stats() })
    }

    fn stats(&self) -> Value {
        let stats = self.parts.queue.stats();
        let functions = stats.functions.iter().map(|(name, counts)| {
            json!({
                "name": name,
                "paused": counts.paused,
                "scheduled": counts.scheduled,
                "queued": counts.queued,
                "running": counts.running,
                "succeeded": counts.succeeded,
                "failed": counts.failed,
                "cancelled": counts.cancelled,
            })
        });
        functions.collect()
    }
}
