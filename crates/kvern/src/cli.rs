//! The command line: verbs, flags and their help. Nothing is done here.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum, value_parser};

const EXIT_CODES: &str = "\
Exit codes: 0 ok · 1 the operation failed · 2 usage or configuration · 3 not found · 4 conflict · 5 not allowed · \
6 cannot reach the server · 7 timed out";

/// Without a slot nothing would ever run; more attempts at once than this no box of ours starts.
const SLOTS: RangeInclusive<i64> = 1..=65_536;

/// Turns this box into a private serverless platform.
#[derive(Debug, Parser)]
#[command(name = "kvern", version, about, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Flags that every verb takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// The server that client verbs talk to.
    #[arg(long, global = true, env = "KVERN_SERVER", default_value = "http://127.0.0.1:8080", value_name = "URL")]
    pub(crate) server: String,
    /// The token that the server wants (or KVERN_TOKEN_FILE, a file with it).
    #[arg(long, global = true, env = "KVERN_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// How data is printed on stdout.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people.
    Table,
    /// One JSON document; of logs, one per line. The bytes of jobs and scripts stay what they are.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run everything here for development: watches files, keeps data in ./.kvern.
    Dev(Dev),
    /// Run the server.
    Serve(Serve),
    /// Run a function and print what it answers.
    Invoke(Invoke),
    /// Look at jobs, cancel them, retry them.
    Jobs {
        #[command(subcommand)]
        verb: JobsVerb,
    },
    /// Look at functions, pause and resume them.
    Functions {
        #[command(subcommand)]
        verb: FunctionsVerb,
    },
    /// Print the logs of jobs as they run.
    Logs(Logs),
    /// Check a kvern.toml and print every mistake in it.
    Check(Check),
    /// Write a new function and the kvern.toml that declares it.
    New(New),
    /// Tell a running server to read its kvern.toml and code again.
    Reload(Reload),
    /// Look for damage in a data directory, beside its server or without one, and say what to do.
    Doctor(Doctor),
    /// Copy a data directory while its server works, or look at such a copy.
    Backup {
        #[command(subcommand)]
        verb: BackupVerb,
    },
    /// Bring a backup back, as a data directory.
    Restore(Restore),
    /// Ask a server whether it lives; for container health checks.
    Healthcheck(Healthcheck),
    /// Print a fresh token for KVERN_TOKEN.
    Token,
    /// Print shell completions.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// `kvern dev`
#[derive(Debug, Args)]
pub(crate) struct Dev {
    /// A function file; without a kvern.toml, each public function in it becomes a function of Kvern.
    pub(crate) file: Option<PathBuf>,
    /// Where to listen; without it the first free port from 8080.
    #[arg(long, env = "KVERN_LISTEN", value_name = "ADDRESS")]
    pub(crate) listen: Option<String>,
    /// The data directory.
    #[arg(long, env = "KVERN_DATA", default_value = ".kvern", value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// The manifest.
    #[arg(long, env = "KVERN_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Begin with an empty data directory: removes all jobs kept there.
    #[arg(long)]
    pub(crate) clean: bool,
}

/// `kvern serve`
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// The manifest.
    #[arg(long, env = "KVERN_CONFIG", value_name = "FILE", default_value = "kvern.toml")]
    pub(crate) config: PathBuf,
    /// Where to listen [default: the socket that systemd passes in, or 127.0.0.1:8080].
    #[arg(long, env = "KVERN_LISTEN", value_name = "ADDRESS")]
    pub(crate) listen: Option<String>,
    /// The data directory [default: /var/lib/kvern for root, ~/.local/share/kvern otherwise; kvern-worker for a worker].
    #[arg(long, env = "KVERN_DATA", value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Where jobs are kept: sqlite, in the data directory, or for a worker unix:PATH, the socket of its gateway
    /// [default: sqlite].
    #[arg(long, env = "KVERN_QUEUE", value_name = "QUEUE")]
    pub(crate) queue: Option<String>,
    /// Where a gateway serves its queue to workers [default: queue.sock in the data directory].
    #[arg(long, env = "KVERN_SOCKET", value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Which parts to run.
    #[arg(long, env = "KVERN_ROLE", value_enum, default_value_t = Role::All)]
    pub(crate) role: Role,
    /// Listen beyond loopback without a token. Anybody who can reach the port can run your functions.
    #[arg(long)]
    pub(crate) insecure: bool,
    /// A name under which it answers without a token, such as that of a proxy on this machine; may be repeated.
    #[arg(long = "host", env = "KVERN_HOSTS", value_name = "NAME", value_delimiter = ',', value_parser = kvern_manifest::host_name)]
    pub(crate) hosts: Vec<String>,
    /// Attempts at once over all functions.
    #[arg(long, env = "KVERN_SLOTS", value_name = "N", default_value_t = 256, value_parser = value_parser!(u32).range(SLOTS))]
    pub(crate) slots: u32,
    /// How long the server takes to stop after SIGTERM, at most: running jobs and calls may go on for most of it.
    #[arg(long, env = "KVERN_DRAIN", value_name = "TIME", default_value = "20s", value_parser = duration)]
    pub(crate) drain: Duration,
}

/// Which parts of the server run in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Gateway, queue and worker.
    All,
    /// Gateway and queue; workers come to its socket.
    Gateway,
    /// A worker of the gateway that `--queue` names.
    Worker,
}

/// `kvern invoke`
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("as a job").args(["asynchronous", "wait"]).multiple(true)))]
pub(crate) struct Invoke {
    /// The function.
    pub(crate) name: String,
    /// The input: text, @FILE, or - for stdin.
    #[arg(short, long, value_name = "DATA|@FILE|-")]
    pub(crate) data: Option<String>,
    /// Content type of the input [default: application/json for text that is JSON, else by the server].
    #[arg(short = 't', long, value_name = "TYPE")]
    pub(crate) content_type: Option<String>,
    /// Make it a job and print its id instead of waiting for the answer.
    #[arg(long = "async")]
    pub(crate) asynchronous: bool,
    /// Make it a job and wait this long for its result.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) wait: Option<Duration>,
    /// Idempotency key: the same key makes one job, however often it is sent. A call is no job and has none.
    #[arg(long, value_name = "KEY", requires = "as a job")]
    pub(crate) key: Option<String>,
}

/// `kvern jobs …`
#[derive(Debug, Subcommand)]
pub(crate) enum JobsVerb {
    /// List jobs, the latest first.
    List {
        /// Of this function.
        #[arg(long, value_name = "NAME")]
        function: Option<String>,
        /// In these states, separated by commas.
        #[arg(long, value_name = "STATE,…")]
        state: Option<String>,
        /// Moved since: 1h, or a time such as 2026-01-31T12:00:00Z.
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
        /// At most this many.
        #[arg(long, default_value_t = 50)]
        limit: usize,
        /// Go on after the page that printed this.
        #[arg(long)]
        cursor: Option<String>,
    },
    /// Show a job.
    Get {
        /// Its id.
        id: String,
        /// Wait this long for it to finish.
        #[arg(long, value_name = "TIME", value_parser = duration)]
        wait: Option<Duration>,
    },
    /// Print the result of a job, byte for byte.
    Result {
        /// Its id.
        id: String,
    },
    /// Print the log of a job.
    Logs {
        /// Its id.
        id: String,
        /// Go on until the job has finished.
        #[arg(short, long)]
        follow: bool,
    },
    /// Cancel a job.
    Cancel {
        /// Its id.
        id: String,
    },
    /// Give failed or cancelled jobs another life.
    Retry {
        /// Their ids.
        #[arg(required_unless_present = "all_failed")]
        ids: Vec<String>,
        /// Every failed job of this function.
        #[arg(long, value_name = "FUNCTION", conflicts_with = "ids")]
        all_failed: Option<String>,
    },
}

/// `kvern functions …`
#[derive(Debug, Subcommand)]
pub(crate) enum FunctionsVerb {
    /// List functions.
    List,
    /// Show one function.
    Describe {
        /// Its name.
        name: String,
    },
    /// Stop giving its jobs to workers; submits go on.
    Pause {
        /// Its name.
        name: String,
    },
    /// Give its jobs to workers again.
    Resume {
        /// Its name.
        name: String,
    },
}

/// `kvern logs`
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Only of this function.
    pub(crate) function: Option<String>,
    /// Go on as jobs run.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Of the latest jobs, at most this many.
    #[arg(long, default_value_t = 10)]
    pub(crate) limit: usize,
}

/// `kvern check`
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The manifest.
    #[arg(default_value = "kvern.toml")]
    pub(crate) file: PathBuf,
    /// Print the JSON Schema of kvern.toml instead.
    #[arg(long)]
    pub(crate) schema: bool,
}

/// `kvern new`
#[derive(Debug, Args)]
pub(crate) struct New {
    /// The function's name.
    pub(crate) name: String,
    /// In which language.
    #[arg(short, long, value_enum, default_value_t = Template::Python)]
    pub(crate) language: Template,
}

/// The languages that `kvern new` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Template {
    /// A warm Python handler.
    Python,
    /// A warm Node handler.
    Node,
    /// A shell script, a process per attempt.
    Shell,
}

/// `kvern reload`
#[derive(Debug, Args)]
pub(crate) struct Reload {
    /// The data directory of the server.
    #[arg(long, env = "KVERN_DATA", value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
}

/// `kvern doctor`
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// The data directory.
    #[arg(long, env = "KVERN_DATA", value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
}

/// `kvern backup …`
#[derive(Debug, Subcommand)]
pub(crate) enum BackupVerb {
    /// Make a backup in a new or empty directory. A server goes on working.
    Create {
        /// Where to.
        dir: PathBuf,
        /// The data directory.
        #[arg(long, env = "KVERN_DATA", value_name = "DIR")]
        data: Option<PathBuf>,
    },
    /// Read all of a backup and say whether it is whole.
    Verify {
        /// Where it is.
        dir: PathBuf,
    },
}

/// `kvern restore`
#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The backup.
    pub(crate) backup: PathBuf,
    /// The data directory to make, new or empty.
    #[arg(long, env = "KVERN_DATA", value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
}

/// `kvern healthcheck`
#[derive(Debug, Args)]
pub(crate) struct Healthcheck {
    /// Ask whether it is ready for work, not only alive.
    #[arg(long)]
    pub(crate) ready: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| format!("`{text}` is not a time; write it as 500ms, 5s or 2m"))
}
