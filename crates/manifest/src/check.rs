//! From as written to as checked: bounds, relations between keys, and every default filled in.
//!
//! Each function here returns a usable value even where it reports a mistake, so that the next key is looked at too;
//! whether anything was reported decides in the end.

use std::fmt::Display;
use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kvern_core::limits::{
    INPUT_BYTES_DEFAULT, KEEP_BYTES_DEFAULT, KEEP_FAILED_DEFAULT, KEEP_SUCCEEDED_DEFAULT, OUTPUT_BYTES_DEFAULT,
    QUEUED_JOBS_DEFAULT, TIMEOUT_DEFAULT,
};
use kvern_core::{Function, FunctionName, Keep, Memory, Mode, RetryPolicy, Scale};

use crate::address::{ADDRESS_HINT, listen_address};
use crate::door::door;
use crate::host::host_name;
use crate::mistake::{Report, Span, shorten};
use crate::read::{Entries, Entry, Field, Given, nearest};
use crate::route::{Taken, route};
use crate::units::{Length, Size};
use crate::{Defaults, ServerSettings, bounds, written};

/// The queues that there are: in the data directory, or on the socket of a gateway.
const QUEUE: &str = "sqlite";
const SOCKET: &str = "unix:";

/// The functions, in the order of the file.
pub(crate) fn functions(
    written: &written::Manifest,
    home: &Path,
    defaults: &Defaults,
    report: &mut Report<'_>,
) -> Vec<Function> {
    let mut taken = Taken::new();
    let entries = written.functions.value().map_or(&[][..], |functions| &functions.0);
    entries.iter().filter_map(|entry| function(entry, home, defaults, &mut taken, report)).collect()
}

/// The settings of the server.
pub(crate) fn server(written: &written::Manifest, home: &Path, report: &mut Report<'_>) -> ServerSettings {
    let Some(server) = written.server.value() else { return ServerSettings::default() };
    for field in [&server.listen, &server.data, &server.queue] {
        if let Some(given) = field.given().filter(|given| given.value.trim().is_empty()) {
            report.add(&given.span, format!("`{}` is empty", given.path)).hint("remove the line to get the default");
        }
    }
    ServerSettings {
        listen: server.listen.given().map(|given| listen(given, report)),
        data: server.data.given().map(|given| data(given, home, report)),
        queue: server.queue.given().map(|given| queue(given, report)),
        hosts: server.hosts.given().map_or_else(Vec::new, |given| hosts(given, report)),
    }
}

fn function(
    entry: &Entry<written::Function>,
    home: &Path,
    defaults: &Defaults,
    taken: &mut Taken,
    report: &mut Report<'_>,
) -> Option<Function> {
    let written = &entry.value;
    let name = name(&entry.name, &entry.name_span, report);
    let door = door(&entry.name, &entry.name_span, written, report);
    let route = written.route.given().and_then(|given| route(given, &entry.name, taken, report));
    let (concurrency, scale) = concurrency(written, defaults, report);
    let function = Function {
        home: home.to_owned(),
        route,
        mode: written.mode.given().map_or(Mode::default(), |given| mode(given, report)),
        timeout: length(&written.timeout, bounds::TIMEOUT, TIMEOUT_DEFAULT, report),
        retry: written.retry.value().map_or_else(RetryPolicy::default, |retry| retry_policy(retry, report)),
        concurrency,
        scale,
        memory: memory(&written.memory, report),
        env: written.env.value().map_or_else(Vec::new, |env| variables(env, report)),
        max_input: bounded(&written.max_input, bounds::BODY, Size(INPUT_BYTES_DEFAULT), report).0,
        max_output: bounded(&written.max_output, bounds::BODY, Size(OUTPUT_BYTES_DEFAULT), report).0,
        max_queued: count(&written.max_queued, bounds::QUEUED, QUEUED_JOBS_DEFAULT, report),
        keep: keep(&written.keep, report),
        // These two come last: they end the function early, and everything above is to be looked at first.
        name: name?,
        door: door?,
    };
    Some(function)
}

fn name(text: &str, span: &Span, report: &mut Report<'_>) -> Option<FunctionName> {
    match text.parse::<FunctionName>() {
        Ok(name) => Some(name),
        Err(bad) => {
            let tidy: String = text
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c.to_ascii_lowercase() } else { '-' })
                .skip_while(|c| !c.is_ascii_lowercase())
                .take(kvern_core::limits::NAME_BYTES_MAX)
                .collect();
            let mistake = report.add(span, bad.to_string());
            if !tidy.is_empty() {
                mistake.hint(format!("`{tidy}` would be one"));
            }
            None
        }
    }
}

fn mode(given: &Given<String>, report: &mut Report<'_>) -> Mode {
    let modes = [Mode::Async, Mode::Sync];
    if let Some(mode) = modes.into_iter().find(|mode| mode.as_str() == given.value) {
        return mode;
    }
    let message = format!("`{}` must be \"async\" or \"sync\", not {:?}", given.path, shorten(&given.value));
    let mistake = report.add(&given.span, message);
    if let Some(near) = nearest(&given.value, &modes.map(Mode::as_str)) {
        mistake.hint(format!("did you mean `\"{near}\"`?"));
    }
    Mode::default()
}

fn retry_policy(retry: &written::Retry, report: &mut Report<'_>) -> RetryPolicy {
    let default = RetryPolicy::default();
    let backoff = length(&retry.backoff, bounds::BACKOFF, default.backoff, report);
    // Who only asks for a long first wait should not have to know that there is a longest one.
    let max_backoff = length(&retry.max_backoff, bounds::BACKOFF, default.max_backoff.max(backoff), report);
    if let (Some(first), Some(longest)) = (retry.backoff.given(), retry.max_backoff.given())
        && longest.value < first.value
    {
        let message = format!("`{}` ({}) is shorter than `backoff` ({})", longest.path, longest.value, first.value);
        report.add(&longest.span, message);
    }
    RetryPolicy {
        attempts: count(&retry.attempts, bounds::ATTEMPTS, default.attempts, report),
        backoff,
        max_backoff,
        jitter: retry.jitter.value().copied().unwrap_or(default.jitter),
    }
}

/// `concurrency` and `scale` fill each other in: a manifest that is right on sixteen cores must be right on two.
fn concurrency(function: &written::Function, defaults: &Defaults, report: &mut Report<'_>) -> (u32, Scale) {
    let absent = written::Scale::default();
    let scale = function.scale.value().unwrap_or(&absent);
    let min: u32 = count(&scale.min, bounds::SCALE_MIN, 0, report);
    let cores = defaults.concurrency.clamp(1, bounds::CONCURRENCY_MAX).max(min);
    let cores = count(&scale.max, bounds::SCALE_MAX, cores, report);
    let concurrency = count(&function.concurrency, bounds::CONCURRENCY, cores, report);
    let max = scale.max.value().map_or(concurrency, |_| cores);
    let too_many = |given: &Given<i64>, other: &str, limit: u32| {
        (given.value > i64::from(limit))
            .then(|| format!("`{}` ({}) is more than `{other}` ({limit})", given.path, given.value))
    };
    if let Some(given) = scale.max.given()
        && let Some(message) = too_many(given, "concurrency", concurrency)
    {
        report.add(&given.span, message).hint("an instance runs one job at a time, so the rest would never be used");
    }
    if let Some(given) = scale.min.given() {
        let other = if scale.max.given().is_some() { "scale.max" } else { "concurrency" };
        if let Some(message) = too_many(given, other, max) {
            report.add(&given.span, message);
        }
    }
    (concurrency, Scale { min, max, idle: length(&scale.idle, bounds::IDLE, bounds::IDLE_DEFAULT, report) })
}

fn memory(field: &Field<Size>, report: &mut Report<'_>) -> Option<Memory> {
    let given = field.given()?;
    if given.value < *bounds::MEMORY.start() {
        let message = format!("`{}` must be at least {}, not {}", given.path, bounds::MEMORY.start(), given.value);
        let mistake = report.add(&given.span, message);
        if (1..=65_536).contains(&given.value.0) {
            mistake.hint(format!("did you mean `\"{}M\"`?", given.value.0));
        }
        return None;
    }
    let bytes = bounded(field, bounds::MEMORY, given.value, report);
    NonZeroU64::new(bytes.0).map(Memory)
}

/// Sorted by name, so that the order in the file makes no new version of the function.
fn variables(env: &Entries<String>, report: &mut Report<'_>) -> Vec<(String, String)> {
    for Entry { name, name_span, value } in &env.0 {
        let problem = match name {
            _ if name.is_empty() => "is empty",
            _ if name.starts_with("KVERN_") => "belongs to the server: `KVERN_` names tell a function about its job",
            _ if name.contains(['=', '\0']) => "contains a `=` or a zero byte",
            _ if value.contains('\0') => "has a value with a zero byte, which no process can be given",
            _ => continue,
        };
        report.add(name_span, format!("the environment variable `{}` {problem}", shorten(name)));
    }
    let mut pairs: Vec<_> = env.0.iter().map(|entry| (entry.name.clone(), entry.value.clone())).collect();
    pairs.sort();
    pairs
}

fn keep(field: &Field<written::Keep>, report: &mut Report<'_>) -> Keep {
    let absent = written::Keep::default();
    let written = field.value().unwrap_or(&absent);
    Keep {
        succeeded: length(&written.succeeded, bounds::KEEP, KEEP_SUCCEEDED_DEFAULT, report),
        failed: length(&written.failed, bounds::KEEP, KEEP_FAILED_DEFAULT, report),
        bytes: bounded(&written.bytes, bounds::KEEP_BYTES, Size(KEEP_BYTES_DEFAULT), report).0,
    }
}

/// The text, if the server can listen there: whether it may shows when it does.
fn listen(given: &Given<String>, report: &mut Report<'_>) -> String {
    if listen_address(&given.value).is_err() && !given.value.trim().is_empty() {
        let message = format!("`{}` is not an address to listen on: {:?}", given.path, shorten(&given.value));
        report.add(&given.span, message).hint(ADDRESS_HINT);
    }
    given.value.clone()
}

fn queue(given: &Given<String>, report: &mut Report<'_>) -> String {
    let is_known = given.value == QUEUE || given.value.strip_prefix(SOCKET).is_some_and(|path| !path.is_empty());
    if !is_known && !given.value.trim().is_empty() {
        let message = format!("`{}`: {:?} is not a queue that this version has", given.path, shorten(&given.value));
        report.add(&given.span, message).hint(format!("write `\"{QUEUE}\"`, or remove the line: it is the default"));
    }
    given.value.clone()
}

fn hosts(given: &Given<Vec<String>>, report: &mut Report<'_>) -> Vec<String> {
    let mut names = Vec::new();
    for (at, text) in given.value.iter().enumerate() {
        match host_name(text) {
            Ok(name) => names.push(name),
            Err(bad) => {
                let message = format!("`{}[{at}]` must be the name of a host, not {:?}", given.path, shorten(text));
                report.add(&given.span, message).hint(bad.to_string());
            }
        }
    }
    names
}

fn data(given: &Given<String>, home: &Path, report: &mut Report<'_>) -> PathBuf {
    if given.value.starts_with('~') {
        let message = format!("`{}`: `~` is a word of the shell and means nothing here", given.path);
        report.add(&given.span, message).hint("write the path from `/`, or one that begins at this folder");
    }
    home.join(&given.value)
}

// === helpers ===

/// The value of a key, or `default`; a value out of bounds is reported.
fn bounded<T: PartialOrd + Copy + Display>(
    field: &Field<T>,
    bounds: RangeInclusive<T>,
    default: T,
    report: &mut Report<'_>,
) -> T {
    let Some(given) = field.given() else { return default };
    if bounds.contains(&given.value) {
        return given.value;
    }
    let (least, most) = bounds.into_inner();
    let message = format!("`{}` must be between {least} and {most}, not {}", given.path, given.value);
    report.add(&given.span, message);
    default
}

fn length(
    field: &Field<Length>,
    bounds: RangeInclusive<Length>,
    default: Duration,
    report: &mut Report<'_>,
) -> Duration {
    bounded(field, bounds, Length(default), report).0
}

/// A count in the type that the function has for it. `default` also stands for what does not fit; that is out of
/// bounds, too, and so reported.
fn count<N>(field: &Field<i64>, bounds: RangeInclusive<i64>, default: N, report: &mut Report<'_>) -> N
where
    N: Copy + TryFrom<i64>,
{
    match field.given() {
        None => default,
        Some(given) => N::try_from(bounded(field, bounds, given.value, report)).unwrap_or(default),
    }
}
