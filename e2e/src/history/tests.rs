//! That the judge lets right things pass, and catches each kind of wrong.

use std::time::Duration;

use super::{Ask, Asked, Evidence, Millis, Record, Told, Violation, check, witness};

/// Two lives: a kill between 1000 and 2000. The server is asked for its list at 3000.
fn evidence(asked: &[Asked], witness: &str, listed: &[&Record]) -> Evidence {
    let runs = witness::parse(witness).expect("a log");
    let (lives, listed_at) = (vec![0, 2000], 3000);
    Evidence {
        asked: asked.to_vec(),
        runs,
        lives,
        listed: listed.iter().map(|record| (*record).clone()).collect(),
        listed_at,
        ..Evidence::default()
    }
}

fn asked(ask: Ask, sent: Millis, told: Told) -> Asked {
    let told_at = if matches!(told, Told::Unknown(_)) { Millis::MAX } else { sent + 1 };
    Asked { ask, sent, told, told_at }
}

fn accepted(note: u64, id: &str) -> Asked {
    asked(Ask::Submit(note), 10, Told::Accepted(id.to_owned()))
}

fn unknown(ask: Ask, sent: Millis) -> Asked {
    asked(ask, sent, Told::Unknown("no answer".to_owned()))
}

/// A job `a` with note 1, in a state, with attempts that ended so.
fn job(state: &str, attempts: &[(u64, &str)]) -> Record {
    let attempts: Vec<_> = attempts.iter().map(|(number, outcome)| (*number, (*outcome).to_owned())).collect();
    let is_final = matches!(state, "succeeded" | "failed" | "cancelled");
    Record {
        id: "a".to_owned(),
        state: state.to_owned(),
        note: Some(1),
        attempt: attempts.last().map_or(0, |(number, _)| *number),
        finished_at: if is_final { "t1".to_owned() } else { String::new() },
        attempts,
    }
}

fn later(record: Record, finished_at: &str) -> Record {
    Record { finished_at: finished_at.to_owned(), ..record }
}

fn look(at: Millis, record: &Record) -> Asked {
    asked(Ask::Look(record.id.clone()), at, Told::Shown(record.clone()))
}

fn retry(at: Millis, record: &Record) -> Asked {
    asked(Ask::Retry(record.id.clone()), at, Told::Shown(record.clone()))
}

/// `start a 1 1 100;end a 1 1 100 ok`: job, attempt, note, and when the server began it.
fn log(lines: &str) -> String {
    let hour = u64::try_from(witness::TIMEOUT.as_millis()).expect("an hour");
    let line = |line: &str| {
        let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        words[4] = (words[4].parse::<u64>().expect("a time") + hour).to_string();
        words.join(" ") + "\n"
    };
    lines.split(';').filter(|text| !text.is_empty()).map(line).collect()
}

fn a() -> String {
    "a".to_owned()
}

#[track_caller]
fn passes(asked: &[Asked], runs: &str, listed: &[&Record]) {
    assert_eq!(check(&evidence(asked, &log(runs), listed)), []);
}

#[track_caller]
fn catches(violation: Violation, asked: &[Asked], runs: &str, listed: &[&Record]) {
    assert_eq!(check(&evidence(asked, &log(runs), listed)), [violation]);
}

const RAN: &str = "start a 1 1 100;end a 1 1 100 ok";

#[test]
fn what_is_in_order_passes() {
    let done = job("succeeded", &[(1, "succeeded")]);
    passes(&[accepted(1, "a"), look(500, &done)], RAN, &[&done]);
    passes(&[accepted(1, "a")], "", &[&job("queued", &[])]);
    passes(&[unknown(Ask::Submit(1), 10)], "", &[]);
    passes(&[unknown(Ask::Submit(1), 10), accepted(1, "a")], RAN, &[&done]);
    let retried = job("succeeded", &[(1, "failed"), (2, "succeeded")]);
    let runs = "start a 1 1 100;end a 1 1 100 failed;start a 2 1 200;end a 2 1 200 ok";
    passes(&[accepted(1, "a")], runs, &[&retried]);
}

#[test]
fn an_attempt_that_a_kill_cut_off_may_run_again() {
    // Its number stays if it was short, also if it had ended and only its outcome was not kept.
    let runs = "start a 1 1 900;end a 1 1 900 ok;start a 1 1 2100;end a 1 1 2100 ok";
    passes(&[accepted(1, "a")], runs, &[&job("succeeded", &[(1, "succeeded")])]);
    let counted = job("succeeded", &[(1, "interrupted"), (2, "succeeded")]);
    passes(&[accepted(1, "a")], "start a 1 1 900;start a 2 1 2100;end a 2 1 2100 ok", &[&counted]);
    let cancel = asked(Ask::Cancel(a()), 950, Told::Shown(job("running", &[])));
    passes(&[accepted(1, "a"), cancel], "start a 1 1 900", &[&job("cancelled", &[])]);
}

#[test]
fn what_a_kill_cut_off_is_counted() {
    let runs = "start a 1 1 800;start b 1 2 900;end b 1 2 900 ok;start c 1 3 950;end c 1 3 950 ok;\
                start a 2 1 2100;end a 2 1 2100 ok;start b 1 2 2200;end b 1 2 2200 ok";
    let counted = job("succeeded", &[(1, "interrupted"), (2, "succeeded")]);
    let evidence = evidence(&[accepted(1, "a"), accepted(2, "b"), accepted(2, "b")], &log(runs), &[&counted]);
    assert_eq!((check::acknowledged(&evidence), check::cut_off(&evidence), check::unsettled(&evidence)), (2, 2, 1));
}

#[test]
fn a_retry_gives_another_outcome() {
    let (dead, again) = (job("failed", &[(1, "failed")]), job("queued", &[(1, "failed")]));
    let runs = "start a 1 1 100;end a 1 1 100 failed;start a 2 1 700;end a 2 1 700 ok";
    let done = later(job("succeeded", &[(1, "failed"), (2, "succeeded")]), "t2");
    passes(&[accepted(1, "a"), look(500, &dead), retry(600, &again)], runs, &[&done]);
    passes(&[accepted(1, "a"), look(500, &dead), unknown(Ask::Retry(a()), 600)], runs, &[&done]);
    // A retry whose answer was lost may as well not have been done.
    let runs = "start a 1 1 100;end a 1 1 100 failed";
    passes(&[accepted(1, "a"), look(500, &dead), unknown(Ask::Retry(a()), 600)], runs, &[&dead]);
}

#[test]
fn a_lost_job_is_caught() {
    catches(Violation::Lost(a()), &[accepted(1, "a")], "", &[]);
    let missed = asked(Ask::Look(a()), 500, Told::Refused("unknown_job".to_owned()));
    catches(Violation::Lost(a()), &[accepted(1, "a"), missed], "", &[&job("queued", &[])]);
}

#[test]
fn a_job_is_forgotten_only_when_it_ended_and_its_time_is_over() {
    let keep = |millis| [(1, Duration::from_millis(millis))].into();
    let gone = |runs: &str| evidence(&[accepted(1, "a")], &log(runs), &[]);
    assert_eq!(check(&Evidence { keep: keep(1000), ..gone(RAN) }), []);
    assert_eq!(check(&Evidence { keep: keep(5000), ..gone(RAN) }), [Violation::Lost(a())]);
    assert_eq!(check(&Evidence { keep: keep(1000), ..gone("") }), [Violation::Lost(a())]);
    let cancel = unknown(Ask::Cancel(a()), 20);
    assert_eq!(check(&Evidence { keep: keep(1000), ..evidence(&[accepted(1, "a"), cancel], "", &[]) }), []);
}

#[test]
fn a_job_of_nobody_is_caught() {
    let queued = job("queued", &[]);
    catches(Violation::Nobodys(a()), &[], "", &[&queued]);
    let refused = asked(Ask::Submit(1), 10, Told::Refused("queue_full".to_owned()));
    catches(Violation::Nobodys(a()), &[refused], "", &[&queued]);
    catches(Violation::Nobodys(a()), &[accepted(1, "a")], "", &[&Record { note: None, ..queued }]);
}

#[test]
fn two_jobs_of_one_submit_are_caught() {
    let other = Record { id: "b".to_owned(), ..job("queued", &[]) };
    let doubled = || Violation::Doubled { note: 1, jobs: vec![a(), "b".to_owned()] };
    catches(doubled(), &[accepted(1, "a")], "", &[&job("queued", &[]), &other]);
    catches(doubled(), &[accepted(1, "a"), accepted(1, "b")], "", &[&job("queued", &[]), &other]);
}

#[test]
fn a_cancel_that_does_not_hold_is_caught() {
    let cancel = asked(Ask::Cancel(a()), 950, Told::Shown(job("running", &[])));
    let dead = job("failed", &[(1, "failed")]);
    let runs = "start a 1 1 900;end a 1 1 900 failed";
    catches(Violation::CancelLost(a()), &[accepted(1, "a"), cancel.clone()], runs, &[&dead]);
    passes(&[accepted(1, "a"), cancel, unknown(Ask::Retry(a()), 960)], runs, &[&dead]);
}

#[test]
fn a_retry_that_does_nothing_is_caught() {
    let (dead, again) = (job("failed", &[(1, "failed")]), job("queued", &[(1, "failed")]));
    let asked = [accepted(1, "a"), look(500, &dead), retry(600, &again)];
    catches(Violation::RetryLost(a()), &asked, "start a 1 1 100;end a 1 1 100 failed", &[&dead]);
}

#[test]
fn an_outcome_that_changes_is_caught() {
    let (done, dead) = (job("succeeded", &[(1, "succeeded")]), job("failed", &[(1, "failed")]));
    let two = |first: &Record, then: &Record| Violation::TwoOutcomes {
        job: a(),
        first: format!("{:?}", first.outcome()),
        then: format!("{:?}", then.outcome()),
    };
    catches(two(&dead, &done), &[accepted(1, "a"), look(500, &dead)], RAN, &[&done]);
    let again = later(done.clone(), "t2");
    catches(two(&done, &again), &[accepted(1, "a"), look(500, &done)], RAN, &[&again]);
    let queued = job("queued", &[]);
    catches(two(&done, &queued), &[accepted(1, "a"), look(500, &done)], RAN, &[&queued]);
    // A retry that was over before does not explain it.
    let before = [accepted(1, "a"), retry(300, &job("queued", &[])), look(500, &dead)];
    catches(two(&dead, &done), &before, RAN, &[&done]);
}

#[test]
fn an_attempt_with_two_outcomes_is_caught() {
    let twice = job("succeeded", &[(1, "failed"), (1, "succeeded")]);
    let (first, then) = ("(1, \"failed\")".to_owned(), "(1, \"succeeded\")".to_owned());
    catches(Violation::TwoOutcomes { job: a(), first, then }, &[accepted(1, "a")], RAN, &[&twice]);
}

#[test]
fn a_run_after_the_end_is_caught() {
    let done = job("succeeded", &[(1, "succeeded")]);
    let runs = "start a 1 1 100;end a 1 1 100 ok;start a 1 1 2100;end a 1 1 2100 ok";
    catches(Violation::RanAfterItsEnd(a()), &[accepted(1, "a"), look(500, &done)], runs, &[&done]);
}

#[test]
fn a_success_without_a_run_is_caught() {
    let done = job("succeeded", &[(1, "succeeded")]);
    catches(Violation::NeverSucceeded(a()), &[accepted(1, "a")], "start a 1 1 100;end a 1 1 100 failed", &[&done]);
    catches(Violation::NeverSucceeded(a()), &[accepted(1, "a")], "", &[&done]);
}

#[test]
fn a_result_of_another_run_is_caught() {
    let runs = "start a 1 1 900;end a 1 1 900 ok;start a 1 1 2100;end a 1 1 2100 ok";
    let mut evidence = evidence(&[accepted(1, "a")], &log(runs), &[&job("succeeded", &[(1, "succeeded")])]);
    evidence.results = vec![(a(), evidence.runs[1].result())];
    assert_eq!(check(&evidence), []);
    evidence.runs[1].end = Some(witness::End::Failed);
    assert_eq!(check(&evidence), [Violation::WrongResult(a())]);
}

#[test]
fn a_second_run_without_a_kill_is_caught() {
    let twice = |attempt| Violation::RanTwice { job: a(), attempt };
    let done = job("succeeded", &[(1, "succeeded")]);
    catches(twice(1), &[accepted(1, "a")], "start a 1 1 100;start a 1 1 200;end a 1 1 200 ok", &[&done]);
    catches(twice(1), &[accepted(1, "a")], "start a 1 1 100;start a 1 1 100;end a 1 1 100 ok", &[&done]);
    // Lost by a worker that lived, and after a success.
    let counted = job("succeeded", &[(1, "interrupted"), (2, "succeeded")]);
    catches(twice(1), &[accepted(1, "a")], "start a 1 1 100;start a 2 1 200;end a 2 1 200 ok", &[&counted]);
    let runs = "start a 1 1 100;end a 1 1 100 ok;start a 2 1 200;end a 2 1 200 ok";
    catches(twice(1), &[accepted(1, "a")], runs, &[&job("succeeded", &[(1, "succeeded"), (2, "succeeded")])]);
    // And one that comes after a later one.
    let runs = "start a 1 1 100;end a 1 1 100 failed;start a 2 1 900;start a 1 1 2100;end a 1 1 2100 failed";
    catches(twice(2), &[accepted(1, "a")], runs, &[&job("failed", &[(1, "failed")])]);
}

#[test]
fn an_attempt_without_a_record_is_caught() {
    let off = || Violation::OffTheRecord { job: a(), attempt: 1 };
    let runs = "start a 1 1 900;start a 2 1 2100;end a 2 1 2100 ok";
    catches(off(), &[accepted(1, "a")], runs, &[&job("succeeded", &[(2, "succeeded")])]);
    catches(off(), &[accepted(1, "a")], "start a 1 1 2100", &[&job("failed", &[])]);
}

#[test]
fn the_log_of_the_functions_is_read_right() {
    let runs = witness::parse(&log("start a 1 7 100;start b 2 8 200;end a 1 7 100 ok")).expect("a log");
    assert_eq!(
        runs.iter().map(|run| (run.job.as_str(), run.attempt, run.note, run.began)).collect::<Vec<_>>(),
        [("a", 1, 7, 100), ("b", 2, 8, 200)]
    );
    assert_eq!(runs.iter().map(|run| run.end).collect::<Vec<_>>(), [Some(witness::End::Ok), None]);
    for wrong in ["end a 1 7 100 ok", "start a 1 7", "start a x 7 100", "stop a 1 7 100"] {
        assert!(witness::parse(wrong).is_err(), "{wrong}");
    }
    let twice = log("start a 1 7 100;end a 1 7 100 ok;end a 1 7 100 ok");
    assert!(witness::parse(&twice).is_err(), "a run ends once");
}
