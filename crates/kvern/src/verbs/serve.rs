//! `kvern serve`: the server, until it is told to stop.

use std::net::SocketAddr;
use std::time::Duration;

use kvern_manifest::Manifest;
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::cli::{Global, Serve};
use crate::config;
use crate::exit::{Code, Outcome, Stop};
use crate::observe::Lines;
use crate::reloads::{Book, End};
use crate::roles::{self, Plan};
use crate::wire::{self, Options, Parts, Place, Reloader};
use crate::{manifest, passed, port, secrecy, signals, supervisor};

/// The socket of a gateway, in its data directory.
const SOCKET: &str = "queue.sock";

/// Serves until TERM or INT.
pub(crate) async fn run(global: &Global, serve: &Serve, passed: Option<std::net::TcpListener>) -> Outcome {
    init_log();
    secrecy::hide();
    let manifest = manifest::load(&serve.config)?;
    let plan = roles::plan(serve, &manifest.server, passed.is_some())?;
    let data = match (&plan, serve.data.clone()) {
        (_, Some(data)) => data,
        // What the manifest says is for the process that has the queue.
        (Plan::Worker { .. }, None) => config::worker_dir()?,
        _ => manifest.server.data.clone().map_or_else(config::data_dir, Ok)?,
    };
    config::check_data(&data, &manifest.home)?;
    let slots = usize::try_from(serve.slots).unwrap_or(usize::MAX);
    let parts = match plan {
        Plan::All => Parts::All { place: place(global, serve, &manifest, passed)?, slots },
        Plan::Gateway { socket } => {
            let socket = std::path::absolute(socket.unwrap_or_else(|| data.join(SOCKET)))?;
            Parts::Gateway { place: place(global, serve, &manifest, passed)?, socket }
        }
        Plan::Worker { queue } => Parts::Worker { queue: std::path::absolute(queue)?, slots },
    };
    let shutdown = CancellationToken::new();
    signals::stop_on_signal(shutdown.clone())?;
    // A reload that is asked for too early must not end us.
    let asked = signals::reload(true)?;
    let options = Options { parts, data: data.clone(), manifest, drain: serve.drain, lines: Lines::Log };
    let server = wire::start(options).await?;
    // Only now is the data directory ours.
    let config = serve.config.clone();
    tokio::spawn(take_reloads(asked, Book::open(&data), server.reloader(), move || manifest::load(&config)));
    supervisor::tell(supervisor::READY);
    let stopping = shutdown.clone();
    tokio::spawn(async move {
        stopping.cancelled().await;
        supervisor::tell(supervisor::STOPPING);
    });
    server.run(shutdown).await
}

/// Where clients find the gateway, and who may come.
fn place(
    global: &Global,
    serve: &Serve,
    manifest: &Manifest,
    passed: Option<std::net::TcpListener>,
) -> Result<Place, Stop> {
    let address = address_of(serve, manifest.server.listen.as_deref(), passed.as_ref())?;
    let token = config::token(global.token.clone())?;
    let hosts = if serve.hosts.is_empty() { &manifest.server.hosts } else { &serve.hosts };
    let settings = kvern_gateway::Settings {
        token: token.as_deref().map(kvern_gateway::Token::new),
        hosts: hosts.clone(),
        insecure: serve.insecure,
        ..kvern_gateway::Settings::default()
    };
    check_access(&settings, address, passed.is_some())?;
    if serve.insecure && !address.ip().is_loopback() && token.is_none() {
        tracing::warn!(%address, "INSECURE: whoever reaches this address can run your functions and read their results");
    }
    let listener = match passed {
        Some(passed) => {
            tracing::info!(%address, "the socket was passed in");
            TcpListener::from_std(passed)?
        }
        None => bind(address)?,
    };
    Ok(Place { listener, settings })
}

/// Where to listen: what was passed in, the flag, the manifest, the default.
fn address_of(
    serve: &Serve,
    manifest: Option<&str>,
    passed: Option<&std::net::TcpListener>,
) -> Result<SocketAddr, Stop> {
    let passed = passed.map(std::net::TcpListener::local_addr).transpose()?;
    let flag = serve.listen.as_deref().map(address).transpose()?;
    match passed::place(passed, flag)? {
        Some(place) => Ok(place),
        None => address(manifest.unwrap_or(config::LISTEN)),
    }
}

/// Refuses an address that others can reach without a token.
fn check_access(gateway: &kvern_gateway::Settings, address: SocketAddr, is_passed: bool) -> Outcome {
    let Err(unsafe_listen) = gateway.check(address) else { return Ok(()) };
    let stop = Stop::new(Code::Usage, unsafe_listen.to_string());
    Err(match is_passed {
        true => stop.hint("(the address is that of the socket that was passed in: `ListenStream=` in the socket unit)"),
        false => stop,
    })
}

/// Reloads whenever it is asked for, and writes down how that went.
pub(crate) async fn take_reloads(
    mut asked: signals::Reload,
    mut book: Book,
    reloader: Reloader,
    read: impl Fn() -> Result<Manifest, Stop>,
) {
    loop {
        tokio::select! {
            () = asked.wait() => {
                book.begin();
                book.end(reload(read(), &reloader).await);
            }
            () = sleep(WRITE_AGAIN), if !book.is_written() => book.catch_up(),
        }
    }
}

async fn reload(read: Result<Manifest, Stop>, reloader: &Reloader) -> End {
    match read {
        Ok(manifest) => reloader.reload(manifest).await,
        Err(stop) => {
            tracing::error!(error = %stop.what, "not reloaded; what ran before goes on");
            End::mistaken(&stop.to_string())
        }
    }
}

/// The pause after the state of reloads could not be written.
const WRITE_AGAIN: Duration = Duration::from_secs(5);

/// Binds, or says who holds the port.
pub(crate) fn bind(address: SocketAddr) -> Result<TcpListener, Stop> {
    port::listen_again(address).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            let stop = Stop::new(Code::Conflict, format!("port {} is taken", address.port()));
            let stop = match port::holder(address) {
                Some(holder) => stop.hint(format!("held by {holder}")),
                None => stop,
            };
            stop.hint(format!("try --listen {}:{}, or stop the other", address.ip(), address.port().wrapping_add(1)))
        }
        std::io::ErrorKind::PermissionDenied => {
            Stop::new(Code::NotAllowed, format!("not allowed to listen on {address}"))
                .hint("ports below 1024 are for root: choose another, or put a proxy in front")
        }
        _ => Stop::new(Code::Usage, format!("cannot listen on {address}: {error}")),
    })
}

/// The address to listen on.
pub(crate) fn address(listen: &str) -> Result<SocketAddr, Stop> {
    kvern_manifest::listen_address(listen)
        .map_err(|bad| Stop::usage(format!("`{listen}` is {bad}")).hint("write it as 127.0.0.1:8080 or [::1]:8080"))
}

/// Logs to stderr: text for a terminal, JSON otherwise; `KVERN_LOG` sets the level.
pub(crate) fn init_log() {
    use std::io::IsTerminal;
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("KVERN_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let is_terminal = std::io::stderr().is_terminal();
    // A second initialisation is a test's or a library's: the first stands.
    let _ = if is_terminal { builder.try_init() } else { builder.json().try_init() };
}
