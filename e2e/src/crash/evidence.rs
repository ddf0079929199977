//! What the judge looks at, gathered once the clients have stopped and nothing runs any more.

use std::collections::BTreeMap;
use std::time::Duration;

use super::clients::Crowd;
use super::functions::{BRIEF_KEEP, SOON};
use crate::history::{Evidence, Millis, Record, now, witness};
use crate::http::Http;
use crate::server::Server;
use crate::wait::within;

/// Results that are fetched; of more, every second, third … one is.
const RESULTS_MAX: usize = 1000;

/// Waits until everything that can finish has finished. False if it does not.
pub(super) fn quiet(http: &Http, finish: Duration) -> bool {
    let finished = within(finish, || {
        let functions = http.get("/v1/functions").json();
        let is_quiet = functions["functions"].as_array()?.iter().all(|function| {
            let jobs = &function["jobs"];
            let is_soon = SOON.iter().any(|name| function["name"] == *name);
            jobs["queued"] == 0 && jobs["running"] == 0 && (jobs["scheduled"] == 0 || !is_soon)
        });
        is_quiet.then_some(())
    });
    finished.is_some()
}

/// Everything that is known. The server is [`quiet`], or it does not end what it began.
///
/// # Panics
/// If the functions wrote what they cannot have written, or the server does not give what it lists.
pub(super) fn gather(server: &Server, crowd: &Crowd, lives: &[Millis]) -> Evidence {
    let listed_at = now();
    let listed = crowd.client.list();
    let runs = witness::read(&server.home).unwrap_or_else(|wrong| panic!("{wrong}"));
    let keep: BTreeMap<_, _> = crowd.brief.lock().expect("the brief").iter().map(|note| (*note, BRIEF_KEEP)).collect();
    // What is soon forgotten may be gone before its result is asked for.
    let is_kept = |job: &&Record| !job.note.is_some_and(|note| keep.contains_key(&note));
    let succeeded = listed.iter().filter(is_kept).filter(|job| job.state == "succeeded").map(|job| job.id.as_str());
    let results = results(&crowd.client.http, &succeeded.collect::<Vec<_>>());
    Evidence { asked: crowd.client.history.all(), runs, lives: lives.to_vec(), listed, listed_at, results, keep }
}

fn results(http: &Http, succeeded: &[&str]) -> Vec<(String, String)> {
    let every = succeeded.len() / RESULTS_MAX + 1;
    let first_line = |id: &str| {
        let result = http.get(&format!("/v1/jobs/{id}/result"));
        let line = result.body.split(|byte| *byte == b'\n').next().unwrap_or_default();
        String::from_utf8_lossy(line).into_owned()
    };
    succeeded.iter().step_by(every).map(|id| ((*id).to_owned(), first_line(id))).collect()
}

/// Large inputs that are not stored as they were sent.
pub(super) fn damaged(crowd: &Crowd) -> Vec<String> {
    let large = crowd.large.lock().expect("the large");
    let stored = |id: &str| crowd.client.http.get(&format!("/v1/jobs/{id}/input")).body;
    large.iter().filter(|(id, body)| stored(id) != *body).map(|(id, _)| id.clone()).collect()
}
