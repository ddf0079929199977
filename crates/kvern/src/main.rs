//! The kvern binary: reads the command line and does what its verb says.
//!
//! `cli.rs` has the verbs and flags, `verbs/` one file for each, `wire.rs` puts the server together: only it and the files
//! below it name concrete adapters.

mod calls;
mod cli;
mod client;
mod config;
mod exit;
mod files;
mod lone;
mod manifest;
mod noise;
mod observe;
mod passed;
mod plain;
mod port;
mod print;
mod project;
mod reloads;
mod roles;
mod secrecy;
mod show;
mod signals;
mod supervisor;
mod upkeep;
mod verbs;
mod wait;
mod watch;
mod wire;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::cli::{Cli, Verb};
use crate::exit::{Outcome, Stop};

/// Most threads that wait for the disk at once. More would not make it faster, and each costs a stack and its share of the
/// allocator's pages: with as many as uploads, an upload took up to 160 KiB.
const DISK_THREADS_MAX: usize = 16;

/// See `docs/decisions/dep-mimalloc.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // With them an idle server would take twice its memory. The jail turns them on again for functions.
    _ = rustix::thread::disable_transparent_huge_pages(true);
    // The jail of a function's process is this binary too: it must start before anything else is set up.
    if std::env::args_os().nth(1).is_some_and(|arg| arg == "__jail") {
        return kvern_runtime::jail_main();
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(told) => return print::command_line(&told),
    };
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => {
            print::say(&stop.to_string());
            stop.code.into()
        }
    }
}

fn run(cli: &Cli) -> Outcome {
    let global = &cli.global;
    match &cli.verb {
        Verb::Serve(serve) => {
            // Before anything is opened: it is known by its number.
            let passed = passed::take()?;
            server_runtime()?.block_on(verbs::serve::run(global, serve, passed))
        }
        Verb::Dev(dev) => server_runtime()?.block_on(verbs::dev::run(global, dev)),
        Verb::Invoke(invoke) => client_runtime()?.block_on(verbs::invoke::run(global, invoke)),
        Verb::Jobs { verb } => client_runtime()?.block_on(verbs::jobs::run(global, verb)),
        Verb::Functions { verb } => client_runtime()?.block_on(verbs::functions::run(global, verb)),
        Verb::Logs(logs) => client_runtime()?.block_on(verbs::logs::run(global, logs)),
        Verb::Healthcheck(check) => client_runtime()?.block_on(verbs::healthcheck::run(global, check)),
        Verb::Check(check) => verbs::check::run(global, check),
        Verb::New(new) => verbs::new::run(global, new),
        Verb::Reload(reload) => verbs::reload::run(global, reload),
        Verb::Doctor(doctor) => verbs::doctor::run(global, doctor),
        Verb::Backup { verb } => verbs::backup::run(global, verb),
        Verb::Restore(restore) => verbs::restore::run(global, restore),
        Verb::Token => verbs::token::run(global),
        Verb::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "kvern", &mut script);
            print::data(&script);
            Ok(())
        }
    }
}

fn server_runtime() -> Result<tokio::runtime::Runtime, Stop> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().max_blocking_threads(DISK_THREADS_MAX);
    // One that has nothing to do is memory that an idle server need not hold.
    Ok(builder.thread_keep_alive(std::time::Duration::from_secs(1)).build()?)
}

fn client_runtime() -> Result<tokio::runtime::Runtime, Stop> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
