//! `kvern logs`: the logs of the latest jobs, and with `-f` of those that come.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;

use crate::cli::{Format, Global, Logs};
use crate::client::Client;
use crate::exit::Outcome;
use crate::print;
use crate::show;

/// Jobs whose logs are followed at once; the others are printed when they have finished.
const FOLLOWED_MAX: usize = 32;
/// Jobs remembered as seen, so that none is printed twice.
const SEEN_MAX: usize = 4096;

/// Prints what is there, then follows if asked.
pub(crate) async fn run(global: &Global, logs: &Logs) -> Outcome {
    let client = Client::new(global)?;
    let mut path = format!("/v1/jobs?limit={}", logs.limit);
    if let Some(function) = &logs.function {
        path.push_str(&format!("&function={}", crate::verbs::jobs::percent(function)));
    }
    let page = client.get(&path).await?.json()?;
    let jobs = page.get("jobs").and_then(Value::as_array).cloned().unwrap_or_default();
    if jobs.is_empty() {
        if let Some(function) = &logs.function {
            // Is it one without jobs, or a name with a slip in it?
            client.get(&format!("/v1/functions/{}", crate::verbs::jobs::percent(function))).await?;
        }
        print::say("no jobs yet");
    }
    let (tell, started) = mpsc::unbounded_channel();
    for job in jobs.iter().rev() {
        let (function, id) = (show::text(job, "function"), show::text(job, "id"));
        if logs.follow && show::text(job, "state") == "running" {
            // Its log is printed as one that starts: whole, and as it grows.
            let _ = tell.send((function.to_owned(), id.to_owned()));
        } else {
            print_log(global.output, &client, function, id, false).await?;
        }
    }
    if logs.follow { follow(global.output, &client, logs, (tell, started)).await } else { Ok(()) }
}

/// Function and id of a job.
type Named = (String, String);

/// Follows the event stream of the console and the log of each job that starts.
async fn follow(
    format: Format,
    client: &Client,
    logs: &Logs,
    (tell, mut started): (UnboundedSender<Named>, UnboundedReceiver<Named>),
) -> Outcome {
    print::say("waiting for jobs (Ctrl-C ends)");
    let wanted = logs.function.clone();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let events = client.stream("/ui/events", move |piece| {
        let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.extend_from_slice(&piece);
        for (function, id) in take_moves(&mut lines) {
            if wanted.as_ref().is_none_or(|wanted| *wanted == function) {
                let _ = tell.send((function, id));
            }
        }
    });
    let printing = async {
        let mut seen = Seen::default();
        let mut tasks = JoinSet::new();
        while let Some((function, id)) = started.recv().await {
            if seen.is_new(&id) {
                let client = client.clone();
                if tasks.len() >= FOLLOWED_MAX {
                    tasks.join_next().await;
                }
                tasks.spawn(async move { print_log(format, &client, &function, &id, true).await });
            }
        }
        while tasks.join_next().await.is_some() {}
    };
    let (ended, ()) = tokio::join!(events, printing);
    ended
}

/// Takes the whole lines from a stream of server-sent events and gives the jobs named in them.
fn take_moves(buffer: &mut Vec<u8>) -> Vec<Named> {
    let Some(end) = buffer.iter().rposition(|byte| *byte == b'\n') else { return Vec::new() };
    let whole: Vec<u8> = buffer.drain(..=end).collect();
    let text = String::from_utf8_lossy(&whole);
    let frames = text.lines().filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data:")?).ok());
    let jobs = frames.flat_map(|frame| frame.get("jobs").and_then(Value::as_array).cloned().unwrap_or_default());
    jobs.filter(|job| !matches!(show::text(job, "state"), "queued" | "scheduled"))
        .map(|job| (show::text(&job, "function").to_owned(), show::text(&job, "id").to_owned()))
        .collect()
}

async fn print_log(format: Format, client: &Client, function: &str, id: &str, follow: bool) -> Outcome {
    let query = if follow { "?follow=true" } else { "" };
    each_line(client, &format!("/v1/jobs/{id}/logs{query}"), |line| match format {
        Format::Table => print::line_of(&format!("{function} {}", short(id)), line),
        Format::Json => print::json_line(&json!({ "function": function, "job": id, "line": line })),
    })
    .await
}

/// Hands over each line of a log as it comes, and what stands after the last line end.
pub(crate) async fn each_line(client: &Client, path: &str, mut line: impl FnMut(&str)) -> Outcome {
    let mut rest = Vec::new();
    client
        .stream(path, |piece| {
            rest.extend_from_slice(&piece);
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let whole: Vec<u8> = rest.drain(..=end).collect();
                line(String::from_utf8_lossy(&whole).trim_end());
            }
        })
        .await?;
    if !rest.is_empty() {
        line(&String::from_utf8_lossy(&rest));
    }
    Ok(())
}

/// The end of an id: the part in which ids of the same moment differ.
fn short(id: &str) -> &str {
    id.get(id.len().saturating_sub(8)..).unwrap_or(id)
}

/// The last jobs that were seen.
#[derive(Debug, Default)]
struct Seen {
    ids: HashSet<String>,
    order: VecDeque<String>,
}

impl Seen {
    fn is_new(&mut self, id: &str) -> bool {
        if !self.ids.insert(id.to_owned()) {
            return false;
        }
        self.order.push_back(id.to_owned());
        if self.order.len() > SEEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}
