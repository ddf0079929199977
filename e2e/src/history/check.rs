//! The judge: from what clients were told, what functions wrote and what the server shows in the end to what is wrong.
//!
//! 1. *nothing acknowledged is lost*: a job that was accepted is there, now and whenever somebody looked, unless it ended
//!    and its `keep` is over.
//! 2. *nobody else's jobs*: each job has the note of a submit that was not refused.
//! 3. *one submit, one job*: also when it was sent again with its key.
//! 4. *an acknowledged cancel or retry holds*: a cancelled job ends as cancelled, or as succeeded if it ran by then; a
//!    retried one does not show its old outcome.
//! 5. *one outcome*: what a final job shows never changes, and it does not run, before somebody asks for a retry.
//! 6. *a success has a run that said so*, and its result is that run's.
//! 7. *an attempt runs once*, and again only if the server was killed in between; then its number is the same, or the
//!    record says `interrupted`. All others are on record before the next one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Ask, Asked, End, Millis, Record, Run, Told, Violation};

/// Everything that the judge looks at.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// The history of the clients, whole.
    pub asked: Vec<Asked>,
    /// The log of the functions, whole.
    pub runs: Vec<Run>,
    /// When each life of the server was about to begin; each but the last was ended by a kill before the next.
    pub lives: Vec<Millis>,
    /// What the server lists once the clients have stopped.
    pub listed: Vec<Record>,
    /// When that was.
    pub listed_at: Millis,
    /// Results that were fetched then: the job and the first line of its result. See [`Run::result`].
    pub results: Vec<(String, String)>,
    /// How long the finished jobs of these submits are kept; all others longer than all this took.
    pub keep: BTreeMap<u64, Duration>,
}

/// Everything that is wrong, without repetition.
#[must_use]
pub fn check(evidence: &Evidence) -> Vec<Violation> {
    let mut found = submits(evidence);
    found.extend(results(evidence));
    for (id, job) in jobs(evidence) {
        let judged = [job.is_kept(id, evidence), job.is_as_asked(id), job.has_one_outcome(id), job.ran(id, evidence)];
        found.extend(judged.into_iter().flatten());
    }
    found.into_iter().collect()
}

/// How many jobs were accepted, as far as clients know.
#[must_use]
pub fn acknowledged(evidence: &Evidence) -> usize {
    jobs(evidence).values().filter(|job| job.accepted.is_some()).count()
}

/// How many runs were cut off by a kill: those whose attempt ran again, or whose record says `interrupted`.
#[must_use]
pub fn cut_off(evidence: &Evidence) -> usize {
    let counted = |record: &Record| record.attempts.iter().filter(|(_, outcome)| outcome == INTERRUPTED).count();
    let counted: usize = evidence.listed.iter().map(counted).sum();
    counted + again(evidence, |_| true)
}

/// How many runs had ended by their own word when a kill took their outcome: on its way to the disk, as a rule.
#[must_use]
pub fn unsettled(evidence: &Evidence) -> usize {
    again(evidence, |run| run.end.is_some())
}

/// How many runs that are meant were followed by another one of the same attempt.
fn again(evidence: &Evidence, is_meant: impl Fn(&Run) -> bool) -> usize {
    let is_same = |pair: &&[&Run]| pair[0].attempt == pair[1].attempt && is_meant(pair[0]);
    jobs(evidence).values().map(|job| job.runs.windows(2).filter(is_same).count()).sum()
}

const INTERRUPTED: &str = "interrupted";

/// Rules 2 and 3.
fn submits(evidence: &Evidence) -> BTreeSet<Violation> {
    let mut made: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
    for asked in evidence.asked.iter().filter(|asked| asked.may_be_done()) {
        let Ask::Submit(note) = asked.ask else { continue };
        let jobs = made.entry(note).or_default();
        jobs.extend(if let Told::Accepted(id) = &asked.told { Some(id.as_str()) } else { None });
    }
    let listed = evidence.listed.iter().map(|record| (record.id.as_str(), record.note));
    let ran = evidence.runs.iter().map(|run| (run.job.as_str(), Some(run.note)));
    let mut found = BTreeSet::new();
    for (id, note) in listed.chain(ran) {
        match note.and_then(|note| made.get_mut(&note)) {
            Some(jobs) => _ = jobs.insert(id),
            None => _ = found.insert(Violation::Nobodys(id.to_owned())),
        }
    }
    let doubled = made.into_iter().filter(|(_, jobs)| jobs.len() > 1);
    let named = doubled.map(|(note, jobs)| (note, jobs.into_iter().map(str::to_owned).collect()));
    found.extend(named.map(|(note, jobs)| Violation::Doubled { note, jobs }));
    found
}

/// Rule 6, of the results.
fn results(evidence: &Evidence) -> impl Iterator<Item = Violation> {
    let succeeded = evidence.runs.iter().filter(|run| run.end == Some(End::Ok));
    let given: BTreeSet<(&str, String)> = succeeded.map(|run| (run.job.as_str(), run.result())).collect();
    let wrong = evidence.results.iter().filter(move |(job, result)| !given.contains(&(job.as_str(), result.clone())));
    wrong.map(|(job, _)| Violation::WrongResult(job.clone()))
}

/// A record, and from when to when it was on its way to whoever saw it.
#[derive(Debug, Clone, Copy)]
struct View<'a> {
    asked: Millis,
    told: Millis,
    record: &'a Record,
}

/// What is known of one job.
#[derive(Debug, Default)]
struct Job<'a> {
    /// By which submit, and when.
    accepted: Option<(u64, Millis)>,
    /// When somebody was told that there is no such job.
    missed: Option<Millis>,
    views: Vec<View<'a>>,
    may_be_cancelled: bool,
    /// Those that were acknowledged.
    cancels: Vec<&'a Asked>,
    /// Those that may have been done.
    retries: Vec<&'a Asked>,
    /// In the order in which they began.
    runs: Vec<&'a Run>,
    listed: Option<&'a Record>,
}

fn jobs(evidence: &Evidence) -> BTreeMap<&str, Job<'_>> {
    let mut jobs: BTreeMap<&str, Job<'_>> = BTreeMap::new();
    for asked in &evidence.asked {
        if let (Ask::Submit(note), Told::Accepted(id)) = (&asked.ask, &asked.told) {
            jobs.entry(id).or_default().accepted.get_or_insert((*note, asked.told_at));
        }
        if let Ask::Cancel(id) | Ask::Retry(id) | Ask::Look(id) = &asked.ask {
            jobs.entry(id).or_default().hears(asked);
        }
    }
    for record in &evidence.listed {
        let job = jobs.entry(&record.id).or_default();
        job.listed = Some(record);
        job.views.push(View { asked: evidence.listed_at, told: evidence.listed_at, record });
    }
    for run in &evidence.runs {
        jobs.entry(&run.job).or_default().runs.push(run);
    }
    jobs.values_mut().for_each(|job| job.runs.sort_by_key(|run| run.began));
    jobs
}

// === impl Job ===

impl<'a> Job<'a> {
    fn hears(&mut self, asked: &'a Asked) {
        self.may_be_cancelled |= matches!(asked.ask, Ask::Cancel(_)) && asked.may_be_done();
        match (&asked.ask, &asked.told) {
            (_, Told::Refused(code)) if code == "unknown_job" => self.missed = Some(asked.told_at),
            (Ask::Cancel(_), Told::Shown(_)) => self.cancels.push(asked),
            (Ask::Retry(_), _) if asked.may_be_done() => self.retries.push(asked),
            _ => {}
        }
        if let Told::Shown(record) = &asked.told {
            self.views.push(View { asked: asked.sent, told: asked.told_at, record });
        }
    }

    /// Whether a retry may have been done between two moments.
    fn may_be_retried(&self, from: Millis, to: Millis) -> bool {
        self.retries.iter().any(|retry| retry.sent <= to && retry.told_at >= from)
    }

    /// Pairs of views of which the second was asked for after the first had come.
    fn in_order(&self) -> impl Iterator<Item = (View<'a>, View<'a>)> {
        let pairs = self.views.iter().flat_map(|first| self.views.iter().map(|then| (*first, *then)));
        pairs.filter(|(first, then)| first.told < then.asked)
    }

    /// Rule 1.
    fn is_kept(&self, id: &str, evidence: &Evidence) -> Vec<Violation> {
        let gone = self.missed.or_else(|| self.listed.is_none().then_some(evidence.listed_at));
        let (Some((note, accepted)), Some(gone)) = (self.accepted, gone) else { return Vec::new() };
        // What began, or may be cancelled, may have ended without our knowledge.
        let may_be_over =
            !self.runs.is_empty() || self.may_be_cancelled || self.views.iter().any(|v| v.record.is_final());
        let is_over = |keep: &Duration| u128::from(gone) >= u128::from(accepted) + keep.as_millis();
        let is_forgotten = may_be_over && evidence.keep.get(&note).is_some_and(is_over);
        if is_forgotten { Vec::new() } else { vec![Violation::Lost(id.to_owned())] }
    }

    /// Rule 4.
    fn is_as_asked(&self, id: &str) -> Vec<Violation> {
        let mut found = Vec::new();
        let holds = self.listed.is_none_or(|last| matches!(last.state.as_str(), "succeeded" | "cancelled" | "running"));
        if !holds && self.cancels.iter().any(|cancel| !self.may_be_retried(cancel.sent, Millis::MAX)) {
            found.push(Violation::CancelLost(id.to_owned()));
        }
        let is_lost = |retry: &&Asked| {
            matches!(retry.told, Told::Shown(_))
                && self.in_order().any(|(first, then)| {
                    let around = first.told < retry.sent && retry.told_at < then.asked;
                    around && first.record.is_final() && first.record.outcome() == then.record.outcome()
                })
        };
        found.extend(
            self.retries.iter().copied().any(|retry| is_lost(&retry)).then(|| Violation::RetryLost(id.to_owned())),
        );
        found
    }

    /// Rule 5, of what was shown.
    fn has_one_outcome(&self, id: &str) -> Vec<Violation> {
        let changed = self.in_order().find(|(first, then)| {
            let is_same = first.record.outcome() == then.record.outcome();
            first.record.is_final() && !is_same && !self.may_be_retried(first.asked, then.told)
        });
        let twice = self.listed.and_then(|record| record.attempts.windows(2).find(|pair| pair[0].0 >= pair[1].0));
        let of_job = changed
            .map(|(first, then)| (format!("{:?}", first.record.outcome()), format!("{:?}", then.record.outcome())));
        let of_attempt = twice.map(|pair| (format!("{:?}", pair[0]), format!("{:?}", pair[1])));
        let both = of_job.into_iter().chain(of_attempt);
        both.map(|(first, then)| Violation::TwoOutcomes { job: id.to_owned(), first, then }).collect()
    }

    /// Rules 6 and 7, and rule 5 of what ran.
    fn ran(&self, id: &str, evidence: &Evidence) -> Vec<Violation> {
        let mut found = Vec::new();
        let succeeded = |attempt: u64| self.runs.iter().any(|run| run.attempt == attempt && run.end == Some(End::Ok));
        if self.listed.is_some_and(|last| last.state == "succeeded" && !succeeded(last.attempt)) {
            found.push(Violation::NeverSucceeded(id.to_owned()));
        }
        for (at, run) in self.runs.iter().enumerate() {
            let over = self.views.iter().find(|view| {
                let is_over = view.record.is_final() && view.told < run.began;
                is_over && !self.may_be_retried(view.asked, run.began)
            });
            found.extend(over.map(|_| Violation::RanAfterItsEnd(id.to_owned())));
            found.extend(self.follows(id, run, self.runs.get(at + 1).copied(), evidence));
        }
        found
    }

    /// Whether what came after a run is in order.
    fn follows(&self, id: &str, run: &Run, next: Option<&Run>, evidence: &Evidence) -> Option<Violation> {
        let life = |at: Millis| evidence.lives.iter().filter(|begun| **begun <= at).count();
        let was_killed = life(run.began) < next.map_or(evidence.lives.len(), |next| life(next.began));
        let (job, attempt) = (id.to_owned(), run.attempt);
        let record = self.listed?;
        let outcome =
            record.attempts.iter().find(|(number, _)| *number == attempt).map(|(_, outcome)| outcome.as_str());
        let is_same = next.is_some_and(|next| next.attempt == attempt);
        let is_back = next.is_some_and(|next| next.attempt < attempt);
        match outcome {
            _ if is_same => (!was_killed).then_some(Violation::RanTwice { job, attempt }),
            _ if is_back => Some(Violation::RanTwice { job, attempt }),
            Some(INTERRUPTED) => (!was_killed).then_some(Violation::RanTwice { job, attempt }),
            Some("succeeded") if next.is_some() => Some(Violation::RanTwice { job, attempt }),
            Some(_) => None,
            None if next.is_some() => Some(Violation::OffTheRecord { job, attempt }),
            None => (record.is_final() && !was_killed).then_some(Violation::OffTheRecord { job, attempt }),
        }
    }
}
