//! What came of it: a short table, and what the judge found.

use std::fmt;
use std::io::Write;
use std::time::Duration;

use super::clients::Crowd;
use super::evidence::{damaged, gather};
use crate::history::{Ask, Evidence, Millis, Told, Violation, check};
use crate::server::Server;

/// Violations that are shown with all that is known of their jobs.
const SHOWN_MAX: usize = 5;

/// The table and the verdict.
#[derive(Debug)]
pub struct Report {
    /// How many kills there were.
    pub kills: usize,
    /// How many of them came while [`super::BUSY`] or more jobs ran.
    pub busy: usize,
    /// The shortest time after which a job ran again whose function was killed.
    pub function_again: Duration,
    /// The shortest time after the restart until a job ran again whose server was killed.
    pub server_again: Duration,
    /// Cancels and retries that were acknowledged.
    pub redirected: [usize; 2],
    /// Attempts that a kill cut off.
    pub cut_off: usize,
    /// What is wrong; must be empty.
    pub wrong: Vec<String>,
    title: &'static str,
    rows: Vec<(&'static str, String)>,
}

/// How long something took, each time.
#[derive(Debug, Default)]
pub(super) struct Times(Vec<Duration>);

// === impl Report ===

impl Report {
    /// Judges what is known of a server that is quiet, as all of them are in the end.
    pub(super) fn judge(title: &'static str, server: &Server, crowd: &Crowd, lives: &[Millis], is_quiet: bool) -> Self {
        let evidence = gather(server, crowd, lives);
        let violations = check::check(&evidence);
        let (first, others) = violations.split_at(violations.len().min(SHOWN_MAX));
        let mut wrong: Vec<String> = first.iter().map(|violation| about(violation, &evidence)).collect();
        wrong.extend(others.iter().map(ToString::to_string));
        wrong.extend((!is_quiet).then(|| "jobs run or wait to run, and do not come to an end".to_owned()));
        wrong.extend(damaged(crowd).iter().map(|job| format!("the input of {job} is not what was sent")));
        let (kills, busy, rows) = (lives.len() - 1, 0, Vec::new());
        let (function_again, server_again) = (Duration::ZERO, Duration::ZERO);
        let (redirected, cut_off) = ([0, 0], 0);
        let mut report = Self { kills, busy, function_again, server_again, redirected, cut_off, wrong, title, rows };
        report.count(&evidence, &violations);
        report
    }

    /// Adds a line to the table.
    pub(super) fn row(&mut self, what: &'static str, value: String) {
        self.rows.push((what, value));
    }

    /// Adds how soon jobs ran again at rest.
    pub(super) fn again(&mut self, function: &Times, server: &Times) {
        self.row("function killed at rest: its job runs again after", function.to_string());
        self.row("server killed at rest: its job runs again after", server.to_string());
        (self.function_again, self.server_again) = (function.best(), server.best());
    }

    fn count(&mut self, evidence: &Evidence, violations: &[Violation]) {
        let count = |ask: fn(&Ask) -> bool, told: fn(&Told) -> bool| {
            evidence.asked.iter().filter(|asked| ask(&asked.ask) && told(&asked.told)).count()
        };
        let is_done = |told: &Told| matches!(told, Told::Shown(_));
        let is_lost = |told: &Told| matches!(told, Told::Unknown(_));
        let (cancels, retries) = (count(is_cancel, is_done), count(is_retry, is_done));
        self.redirected = [cancels, retries];
        self.row("jobs acknowledged", check::acknowledged(evidence).to_string());
        self.row("cancels and retries acknowledged", format!("{cancels} and {retries}"));
        let [submits, cancels, retries] = [is_submit, is_cancel, is_retry].map(|ask| count(ask, is_lost));
        let taken = format!("{submits} of submits, {cancels} of cancels, {retries} of retries");
        self.row("answers that a kill took", taken);
        self.row("attempts run", evidence.runs.len().to_string());
        let (cut_off, unsettled) = (check::cut_off(evidence), check::unsettled(evidence));
        self.row("attempts cut off by a kill", format!("{cut_off}, {unsettled} of them between end and outcome"));
        self.cut_off = cut_off;
        let judged = |is_meant: fn(&Violation) -> bool| violations.iter().filter(|found| is_meant(found)).count();
        let lost = judged(|found| matches!(found, Violation::Lost(_)));
        let two = judged(|found| matches!(found, Violation::TwoOutcomes { .. }));
        self.row("acknowledged jobs lost", lost.to_string());
        self.row("jobs with two outcomes", two.to_string());
        self.row("other violations", (violations.len() - lost - two).to_string());
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        self.rows.iter().try_for_each(|(what, value)| writeln!(f, "  {what:<50}{value}"))?;
        self.wrong.iter().try_for_each(|wrong| writeln!(f, "VIOLATION: {wrong}"))
    }
}

fn is_submit(ask: &Ask) -> bool {
    matches!(ask, Ask::Submit(_))
}

fn is_cancel(ask: &Ask) -> bool {
    matches!(ask, Ask::Cancel(_))
}

fn is_retry(ask: &Ask) -> bool {
    matches!(ask, Ask::Retry(_))
}

/// All that is known of the job of a violation.
fn about(violation: &Violation, evidence: &Evidence) -> String {
    let said = violation.to_string();
    let concerns = |id: &str| !id.is_empty() && said.contains(id);
    let asked = evidence.asked.iter().filter(|asked| match (&asked.ask, &asked.told) {
        (Ask::Cancel(id) | Ask::Retry(id) | Ask::Look(id), _) | (_, Told::Accepted(id)) => concerns(id),
        _ => false,
    });
    let lines = asked.map(|asked| format!("{asked:?}"));
    let lines = lines.chain(evidence.runs.iter().filter(|run| concerns(&run.job)).map(|run| format!("{run:?}")));
    let lines = lines.chain(evidence.listed.iter().filter(|job| concerns(&job.id)).map(|job| format!("{job:?}")));
    let lives = format!("lives began at {:?}", evidence.lives);
    [said.clone()].into_iter().chain(lines).chain([lives]).collect::<Vec<_>>().join("\n    ")
}

// === impl Times ===

impl Times {
    pub(super) fn push(&mut self, time: Duration) {
        self.0.push(time);
        self.0.sort();
    }

    /// The shortest; none is as bad as it gets.
    pub(super) fn best(&self) -> Duration {
        self.0.first().copied().unwrap_or(Duration::MAX)
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |at: usize| self.0.get(at).map_or(0, Duration::as_millis);
        write!(f, "{} ms ({} to {})", millis(self.0.len() / 2), millis(0), millis(self.0.len().saturating_sub(1)))
    }
}

/// The middle one.
pub(super) fn median(counts: &mut [u64]) -> u64 {
    counts.sort_unstable();
    counts.get(counts.len() / 2).copied().unwrap_or(0)
}

/// A line for whoever watches, past the capture of tests.
pub(super) fn progress(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
