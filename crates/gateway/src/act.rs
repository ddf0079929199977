//! What a person does to jobs and functions: cancel, retry, pause, resume.

use kvern_core::JobId;

use crate::dispatch::Gateway;
use crate::error::Problem;
use crate::functions::Entry;
use crate::reply::Response;

impl Gateway {
    /// `POST /v1/jobs/{id}/cancel`. A running job is marked, and its attempt stopped within a second.
    pub(crate) async fn cancel(&self, id: JobId) -> Result<Response, Problem> {
        let job = self.queue().cancel(id).await.map_err(|error| {
            Problem::from(error).hint("only a job that is scheduled, queued or running can be cancelled")
        })?;
        self.show(&job)
    }

    /// `POST /v1/jobs/{id}/retry`.
    pub(crate) async fn retry(&self, id: JobId) -> Result<Response, Problem> {
        let job = self
            .queue()
            .retry(id)
            .await
            .map_err(|error| Problem::from(error).hint("only a job that failed or was cancelled can be retried"))?;
        self.show(&job)
    }

    /// `POST /v1/functions/{name}/pause` and `/resume`.
    pub(crate) async fn pause(&self, entry: &Entry, paused: bool) -> Result<Response, Problem> {
        self.queue().pause(&entry.function.name, paused).await?;
        self.describe_function(entry)
    }
}
