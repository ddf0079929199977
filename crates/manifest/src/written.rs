//! `kvern.toml` as written: every key with its type, its meaning, its default and the reason for it.
//!
//! The comments here are the documentation of the manifest: they become the descriptions of the JSON Schema and the
//! rows of `docs/kvern-toml.md`. The paragraph that begins with `Default:` has a fixed form: the default up to the
//! first full stop (in backticks, as TOML, if it is one value), then the reason. A test reads it back and compares it
//! with what an omitted key gives.

use schemars::JsonSchema;

use crate::bounds;
use crate::read::{Entries, Field, Keys, Table};
use crate::units::{Length, Size};

/// The manifest of a Kvern server: its functions, and a few settings of the server itself.
#[derive(Debug, Default, JsonSchema)]
#[schemars(default, deny_unknown_fields, title = "kvern.toml")]
pub(crate) struct Manifest {
    /// The functions, each in a table `[functions.NAME]`. A name is 1 to 63 characters a-z, 0-9, `-` or `_` and begins
    /// with a letter.
    #[schemars(extend("propertyNames" = { "pattern": "^[a-z][a-z0-9_-]{0,62}$" }))]
    pub(crate) functions: Field<Entries<Function>>,
    /// Settings of the server. A flag of `kvern serve` comes before a `KVERN_*` environment variable, and both come
    /// before this table. `kvern dev` takes only `hosts` from it: it listens on loopback, on the first free port from
    /// 8080, and keeps its data in `.kvern`, unless its own flags say otherwise.
    pub(crate) server: Field<Server>,
}

/// A unit of code with its limits. It needs exactly one of `handler` and `exec`. One instance may have 1024 processes and
/// threads, where Kvern may make a cgroup: as root, or as a systemd service with `Delegate=yes`.
#[derive(Debug, Default, JsonSchema)]
#[schemars(default, deny_unknown_fields, extend("oneOf" = [{ "required": ["handler"] }, { "required": ["exec"] }]))]
pub(crate) struct Function {
    /// A function in a file, run in a warm process: `"file.py:function"` for Python 3.9 or later, `"file.mjs"`,
    /// `"file.js"` or `"file.cjs"` for Node 18 or later, with or without `:function`. Without it Python takes the
    /// function named `handler`, else the only public function of the file; Node takes the default export, else
    /// `handler`. The path begins at the folder of the manifest.
    ///
    /// Default: none. Either this or `exec` says what runs.
    pub(crate) handler: Field<String>,
    /// A program and its arguments, started once per attempt: input on stdin, result on stdout, log on stderr. A
    /// program with a `/` begins at the folder of the manifest, one without is looked up in `PATH`. No shell is
    /// involved.
    ///
    /// Default: none. Either this or `handler` says what runs.
    #[schemars(length(min = 1))]
    pub(crate) exec: Field<Vec<String>>,
    /// A route of its own, method and path: `"POST /submit-job"`. Methods are GET, POST, PUT, PATCH and DELETE; the
    /// paths under `/v1`, `/ui`, `/healthz`, `/readyz`, `/metrics` and `/openapi.json` belong to the server.
    ///
    /// Default: none. `/v1/functions/NAME` is always there.
    #[schemars(extend("pattern" = "^(GET|POST|PUT|PATCH|DELETE) +/"))]
    pub(crate) route: Field<String>,
    /// What a request on the route does: `"async"` makes a job of it and answers 202, `"sync"` waits for the result.
    ///
    /// Default: `"async"`. An accepted job survives a crash, a waiting caller does not.
    #[schemars(extend("enum" = ["async", "sync"]))]
    pub(crate) mode: Field<String>,
    /// The time for one attempt or call; then the process gets TERM, five seconds later KILL. Up to 24 hours.
    ///
    /// Default: `"60s"`. A job that hangs holds its slot for as long.
    pub(crate) timeout: Field<Length>,
    /// How often, and with which waits, a failed job is tried again.
    pub(crate) retry: Field<Retry>,
    /// Attempts at once on one worker.
    ///
    /// Default: `scale.max` if that is given, else one per processor core (but `scale.min` if that is more). More would only share the same cores; set it
    /// higher for functions that mostly wait.
    #[schemars(range(min = *bounds::CONCURRENCY.start(), max = *bounds::CONCURRENCY.end()))]
    pub(crate) concurrency: Field<i64>,
    /// How many instances are kept.
    pub(crate) scale: Field<Scale>,
    /// The memory that one instance may take, at least 1M; past it the instance is killed and the attempt counts as a
    /// crash.
    ///
    /// Default: none. Only you know what the function needs.
    pub(crate) memory: Field<Size>,
    /// Environment variables of the function, all of them strings. Names that begin with `KVERN_` belong to the server.
    ///
    /// Default: `{}`. The function sees these and the few that Kvern sets (`PATH`, `HOME`, `LANG`, `TMPDIR` and its own);
    /// the rest of the server's environment, secrets included, is not handed on.
    #[schemars(extend("propertyNames" = { "pattern": "^[^=]+$" }))]
    pub(crate) env: Field<Entries<String>>,
    /// The largest input; a larger one is refused with 413.
    ///
    /// Default: `"16M"`. A photograph fits, a film is better passed by its path.
    pub(crate) max_input: Field<Size>,
    /// The largest result; a larger one fails the attempt.
    ///
    /// Default: `"6M"`. The limit that functions written for AWS Lambda already keep.
    pub(crate) max_output: Field<Size>,
    /// The most jobs that wait; past them a submit is refused, with `Retry-After`.
    ///
    /// Default: `1_000_000`. A burst fits; an endless loop of a client does not fill the disk.
    #[schemars(range(min = *bounds::QUEUED.start(), max = *bounds::QUEUED.end()))]
    pub(crate) max_queued: Field<i64>,
    /// How long finished jobs are kept.
    pub(crate) keep: Field<Keep>,
}

/// How often, and with which waits, a failed job is tried again.
#[derive(Debug, Default, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
pub(crate) struct Retry {
    /// Attempts in all, the first included.
    ///
    /// Default: `5`. With the default waits they span up to fifteen seconds: a restart of what the job calls.
    #[schemars(range(min = *bounds::ATTEMPTS.start(), max = *bounds::ATTEMPTS.end()))]
    pub(crate) attempts: Field<i64>,
    /// The wait before the second attempt; it doubles from there.
    ///
    /// Default: `"1s"`. Most passing failures have passed by then.
    pub(crate) backoff: Field<Length>,
    /// The longest wait between two attempts.
    ///
    /// Default: `"10m"`. Or `backoff` if that is longer. After a long outage the job comes back within this time.
    pub(crate) max_backoff: Field<Length>,
    /// Whether each wait is drawn at random between nothing and its full length.
    ///
    /// Default: `true`. Jobs that failed together do not come back together.
    pub(crate) jitter: Field<bool>,
}

/// How many instances are kept. `exec` starts a process per attempt and keeps none.
#[derive(Debug, Default, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
pub(crate) struct Scale {
    /// Instances that are always there, so that the first job after a pause does not wait for a start.
    ///
    /// Default: `0`. An idle function costs nothing.
    #[schemars(range(min = *bounds::SCALE_MIN.start(), max = *bounds::SCALE_MIN.end()))]
    pub(crate) min: Field<i64>,
    /// The most instances; `concurrency` if left out, and no more than it, because an instance runs one job at a time.
    ///
    /// Default: the value of `concurrency`. Fewer would leave slots that can never be used.
    #[schemars(range(min = *bounds::SCALE_MAX.start(), max = *bounds::SCALE_MAX.end()))]
    pub(crate) max: Field<i64>,
    /// An instance without work for this long is stopped, down to `min`.
    ///
    /// Default: `"10m"`. Long enough for the pause between two bursts, short enough to give the memory back.
    pub(crate) idle: Field<Length>,
}

/// How long finished jobs are kept. Cancelled jobs are kept as long as failed ones.
#[derive(Debug, Default, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
pub(crate) struct Keep {
    /// Jobs that succeeded, with their results, this long after they finished.
    ///
    /// Default: `"24h"`. A client that was away for a night still finds its result.
    pub(crate) succeeded: Field<Length>,
    /// Jobs that failed for good, this long after they failed.
    ///
    /// Default: `"14d"`. Someone has to see them, understand them and retry them, holidays included.
    pub(crate) failed: Field<Length>,
    /// What all of them may take together, with input, result and log; past it the oldest are forgotten before their time.
    ///
    /// Default: `"10G"`. A function that fails in a loop does not fill the disk with its dead letters.
    pub(crate) bytes: Field<Size>,
}

/// Settings of the server.
#[derive(Debug, Default, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
pub(crate) struct Server {
    /// The address of the gateway and its port: `"127.0.0.1:8080"`, `"[::1]:8080"`, `"localhost:8080"`. One that is not
    /// loopback needs a token.
    ///
    /// Default: `"127.0.0.1:8080"`. Nothing is open to the network before you say so.
    pub(crate) listen: Field<String>,
    /// The data directory: everything that Kvern stores lies under it. A relative path begins at the folder of the
    /// manifest.
    ///
    /// Default: `/var/lib/kvern` for root and `~/.local/share/kvern` for others. Jobs outlive the folder of the code.
    pub(crate) data: Field<String>,
    /// Where jobs are queued: `"sqlite"`, in the data directory, or for a worker apart from its gateway `"unix:PATH"`, the
    /// socket of that gateway.
    ///
    /// Default: `"sqlite"`. It is built in and needs no second service.
    pub(crate) queue: Field<String>,
    /// Names under which the gateway answers without a token, beside `localhost` and the loopback addresses: what a proxy
    /// on this machine sends as `Host`. Without ports.
    ///
    /// Default: `[]`. A page that rebinds its own name to your machine reaches nothing.
    pub(crate) hosts: Field<Vec<String>>,
}

// === impl Table ===

impl Table for Manifest {
    const EXPECTED: &'static str = "a table";

    fn read(keys: &mut Keys<'_, '_, '_>) -> Self {
        Self { functions: keys.take("functions"), server: keys.take("server") }
    }
}

impl Table for Function {
    const EXPECTED: &'static str = "a table, `[functions.NAME]`";

    fn read(keys: &mut Keys<'_, '_, '_>) -> Self {
        Self {
            handler: keys.take("handler"),
            exec: keys.take("exec"),
            route: keys.take("route"),
            mode: keys.take("mode"),
            timeout: keys.take("timeout"),
            retry: keys.take("retry"),
            concurrency: keys.take("concurrency"),
            scale: keys.take("scale"),
            memory: keys.take("memory"),
            env: keys.take("env"),
            max_input: keys.take("max_input"),
            max_output: keys.take("max_output"),
            max_queued: keys.take("max_queued"),
            keep: keys.take("keep"),
        }
    }
}

impl Table for Retry {
    const EXPECTED: &'static str = "a table, `{ attempts, backoff, max_backoff, jitter }`";

    fn read(keys: &mut Keys<'_, '_, '_>) -> Self {
        Self {
            attempts: keys.take("attempts"),
            backoff: keys.take("backoff"),
            max_backoff: keys.take("max_backoff"),
            jitter: keys.take("jitter"),
        }
    }
}

impl Table for Scale {
    const EXPECTED: &'static str = "a table, `{ min, max, idle }`";

    fn read(keys: &mut Keys<'_, '_, '_>) -> Self {
        Self { min: keys.take("min"), max: keys.take("max"), idle: keys.take("idle") }
    }
}

impl Table for Keep {
    const EXPECTED: &'static str = "a table, `{ succeeded, failed, bytes }`";

    fn read(keys: &mut Keys<'_, '_, '_>) -> Self {
        Self { succeeded: keys.take("succeeded"), failed: keys.take("failed"), bytes: keys.take("bytes") }
    }
}

impl Table for Server {
    const EXPECTED: &'static str = "a table, `[server]`";

    fn read(keys: &mut Keys<'_, '_, '_>) -> Self {
        Self {
            listen: keys.take("listen"),
            data: keys.take("data"),
            queue: keys.take("queue"),
            hosts: keys.take("hosts"),
        }
    }
}
