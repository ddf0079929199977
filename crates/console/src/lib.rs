//! The console: one page that shows jobs as they move.
//!
//! It reads through the Queue contract and acts only through the public API: its buttons send the same requests that
//! `curl` would. There is no build step, and the page asks no other host for anything.
//!
//! Read [`events`] first: what the page is told, and how often.

pub mod events;
pub mod page;

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use kvern_core::Job;
use kvern_queue::Queue;

/// How a job looks as JSON: the gateway's own rendering, so that the page and the API show the same fields.
pub type Render = Arc<dyn Fn(&Job) -> serde_json::Value + Send + Sync>;

/// What the console works with.
#[derive(Clone)]
pub struct Parts {
    /// Where jobs are.
    pub queue: Arc<dyn Queue>,
    /// How a job looks.
    pub render: Render,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

/// The pages and the event stream, below `/ui`.
pub fn router(parts: Parts) -> Router {
    Router::new()
        .route("/ui", get(page::index))
        .route("/ui/", get(page::index))
        .route("/ui/app.js", get(page::script))
        .route("/ui/style.css", get(page::style))
        .route("/ui/events", get(events::stream))
        .with_state(parts)
}
