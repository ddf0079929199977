//! The suite that every runtime passes: one function per rule of [`crate::contract`], named after it.
//!
//! A runtime is put to the test as one or more [`Subject`]s, each of which knows how to write a function that shows a
//! given [`Behaviour`]. A rule panics where it is broken. A subject that cannot show a behaviour says why, and that
//! stands in the table; nothing is skipped silently.

mod bytes;
mod ends;
mod stage;
mod words;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use kvern_core::Function;

use crate::contract::Runtime;

pub use stage::{Collected, Kept, Run, Silent, Stage, context, function, until};

/// A runtime with a way to write functions for it.
pub trait Subject: Send + Sync + 'static {
    /// Its name in the table.
    fn name(&self) -> &'static str;

    /// The runtime.
    fn runtime(&self) -> Arc<dyn Runtime>;

    /// A new function that behaves so; or, in a few words, why there is none.
    ///
    /// # Errors
    /// The reason, for the table.
    fn function(&self, behaviour: Behaviour) -> Result<Function, &'static str>;

    /// The content type of what a function gives back that was sent this type.
    fn echoed_type(&self, sent: &str) -> String {
        sent.to_owned()
    }

    /// Changes the code of a [`Behaviour::SaysOne`] function, so that it says `two` from its next version on.
    fn say_two(&self, function: &Function);

    /// Takes away what a [`Behaviour::CannotStart`] function needs, once it is prepared.
    fn spoil(&self, _function: &Function) {}

    /// Leaves this much of what starting takes, descriptors say, until the answer is dropped; or, in a few words, why not.
    ///
    /// # Errors
    /// The reason, for the table.
    fn leave_room(&self, function: &Function, pieces: u32) -> Result<Box<dyn Send>, &'static str>;

    /// How many processes of this function there are on the host, detached ones included.
    fn left(&self, function: &Function) -> usize;

    /// The variables that a function finds which nobody declared: its own interpreter's.
    fn extra_variables(&self) -> &'static [&'static str] {
        &[]
    }

    /// The grace that the runtime was set to.
    fn grace(&self) -> Duration;
}

/// What a function does. Inputs are `text/plain` or `application/octet-stream`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Returns its input, with the input's content type if it can.
    Echo,
    /// Prints its input to stdout (handlers) or stderr, without a line end, and returns it.
    Print,
    /// Prints `waiting` and a line end, and never returns. Ends on TERM.
    Hang,
    /// The same, but ignores TERM.
    Stubborn,
    /// Starts children that do not end: one beside it, one in a session of its own, one detached by a double fork; then
    /// prints `waiting` and a line end, and never returns.
    Family,
    /// Starts the same children and returns.
    Parent,
    /// Starts a child that holds all of its descriptors, prints `dying`, and kills itself with SIGKILL.
    Die,
    /// Returns as many bytes `x` as its input says.
    Large,
    /// Prints as many bytes `x` as its input says, and returns.
    Flood,
    /// Returns its environment, a line `NAME=VALUE` each.
    Environment,
    /// Returns `one`, until [`Subject::say_two`].
    SaysOne,
    /// Cannot be started, and its reason has the word `because` in it.
    CannotStart,
}

/// How a rule came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It holds.
    Holds,
    /// The subject cannot show it, and why.
    NotShown(&'static str),
    /// It is broken.
    Broken(String),
}

/// A rule's test.
pub type Test = fn(Arc<dyn Subject>) -> Pin<Box<dyn Future<Output = Shown> + Send>>;

/// Whether a subject could show a rule.
pub type Shown = Result<(), &'static str>;

/// Longest time for one rule on one subject.
const PATIENCE: Duration = Duration::from_secs(60);

macro_rules! rules {
    ($($number:literal $module:ident::$name:ident),* $(,)?) => {
        /// Every rule: its number, its name, its test.
        pub const RULES: &[(u32, &str, Test)] =
            &[$(($number, stringify!($name), |subject| Box::pin($module::$name(subject)))),*];
    };
}

rules! {
    1 bytes::input_reaches_the_function_byte_for_byte,
    2 bytes::output_comes_back_byte_for_byte,
    3 ends::an_attempt_ends_by_its_deadline,
    4 ends::a_dropped_run_is_a_stopped_run,
    5 ends::death_is_seen_at_once,
    6 bytes::output_is_bounded,
    7 words::logs_never_block_the_function,
    8 ends::stop_is_bounded,
    9 words::instances_are_of_one_version,
    10 words::a_start_that_fails_says_why,
    11 words::environment_is_only_what_is_declared,
    12 bytes::attempts_are_apart,
    13 words::no_room_is_nobodys_fault,
}

/// Puts a subject to every test, one after the other.
pub async fn exercise(subject: &Arc<dyn Subject>) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for (_, _, test) in RULES {
        // A task of its own: what panics in it is a verdict and not the end of the table.
        let tested = tokio::spawn(tokio::time::timeout(PATIENCE, test(Arc::clone(subject))));
        verdicts.push(match tested.await {
            Ok(Ok(Ok(()))) => Verdict::Holds,
            Ok(Ok(Err(reason))) => Verdict::NotShown(reason),
            Ok(Err(_)) => Verdict::Broken(format!("did not end within {PATIENCE:?}")),
            Err(panic) => Verdict::Broken(reason_of(panic)),
        });
    }
    verdicts
}

fn reason_of(error: tokio::task::JoinError) -> String {
    let Ok(panic) = error.try_into_panic() else { return "cancelled".to_owned() };
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_else(|| "panic".to_owned())
}
