//! Waiting for the end of a job.

use std::time::Duration;

use kvern_core::{Job, JobId};
use kvern_queue::{Error, Watch};
use tokio::time::{Instant, sleep_until};

use crate::dispatch::Gateway;

/// Events are hints and may be lost: the record is read again this often.
const REREAD_EVERY: Duration = Duration::from_secs(2);

impl Gateway {
    /// The record once the job has finished, or as it stands when the wait is over or the server stops.
    pub(crate) async fn until_final(&self, id: JobId, wait: Duration) -> Result<Job, Error> {
        let until = Instant::now() + wait;
        // Subscribed before the record is read, so that no move falls in between.
        let mut watcher = self.queue().watch(Watch::Job(id));
        loop {
            let job = self.queue().get(id).await?;
            let now = Instant::now();
            if job.state.is_final() || now >= until || self.is_stopping() {
                return Ok(job);
            }
            // Nothing is lost by dropping an arm: the record is read again whatever ended the wait.
            tokio::select! {
                Some(_) = watcher.next() => {}
                () = sleep_until(until.min(now + REREAD_EVERY)) => {}
                () = self.stop().cancelled() => {}
            }
        }
    }
}
