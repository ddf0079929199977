//! `kvern dev`: everything in one process, for one person at a terminal.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use kvern_core::{Door, Function};
use kvern_manifest::Manifest;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::cli::{Dev, Global};
use crate::config;
use crate::exit::{Code, Outcome, Stop};
use crate::noise::Noise;
use crate::observe::{self, Lines};
use crate::print::{self, Colour};
use crate::project::{self, Project};
use crate::reloads::Book;
use crate::verbs::serve;
use crate::watch::Saves;
use crate::wire::{self, Options, Parts, Place, Reloader};
use crate::{port, signals};

const FIRST_PORT: u16 = 8080;
const PORTS_TRIED: u16 = 20;
/// A person who presses Ctrl-C wants the prompt back.
const DRAIN: Duration = Duration::from_secs(5);

/// Serves the project, reloads on save, prints a line per job; until Ctrl-C.
pub(crate) async fn run(global: &Global, dev: &Dev) -> Outcome {
    let began = Instant::now();
    let project = Project::find(dev.file.as_deref(), dev.config.as_deref())?;
    let manifest = project.read()?;
    if manifest.functions.is_empty() {
        return Err(Stop::usage("there is no function to serve").hint("add one with `kvern new NAME`"));
    }
    config::check_data(&dev.data, &project.home())?;
    if dev.clean {
        project::clean(&dev.data)?;
    }
    let listener = listen(dev)?;
    let address = listener.local_addr()?;
    let token = config::token(global.token.clone())?;
    let gateway = kvern_gateway::Settings {
        token: token.as_deref().map(kvern_gateway::Token::new),
        hosts: manifest.server.hosts.clone(),
        ..kvern_gateway::Settings::default()
    };
    gateway.check(address).map_err(|unsafe_listen| Stop::new(Code::Usage, unsafe_listen.to_string()))?;
    let shutdown = CancellationToken::new();
    signals::stop_on_signal(shutdown.clone())?;
    // HUP is not ours: the terminal has gone.
    let asked = signals::reload(false)?;
    let mut server = wire::start(Options {
        parts: Parts::All {
            place: Place { listener, settings: gateway },
            slots: kvern_worker::Settings::default().slots,
        },
        data: dev.data.clone(),
        manifest: manifest.clone(),
        drain: DRAIN,
        lines: Lines::EachJob,
    })
    .await?;
    ignore_in_git(&dev.data);
    let reloader = server.reloader();
    let again = project.clone();
    tokio::spawn(serve::take_reloads(asked, Book::open(&dev.data), reloader.clone(), move || again.read()));
    let saves = Saves::below(&project.home())?;
    // Last: whoever reads the addresses takes it that they answer.
    greet(&manifest, address, &dev.data, token.as_deref());
    tokio::spawn(reload_on_save(project, manifest, saves, reloader));
    let ready = server.ready();
    tokio::spawn(async move {
        ready.await;
        print::say(&print::paint(
            &format!("  ready after {} ms; Ctrl-C stops\n", began.elapsed().as_millis()),
            Colour::Dim,
        ));
    });
    server.run(shutdown).await
}

/// Reloads after each save, and says so where something changed: the manifest, a version, or that it works again.
async fn reload_on_save(project: Project, mut running: Manifest, mut saves: Saves, reloader: Reloader) {
    let mut noise = Noise::default();
    let mut was_broken = false;
    loop {
        let sorted = noise.sort(saves.next().await, tokio::time::Instant::now());
        sorted.noisy.iter().for_each(|path| say_noisy(path));
        let Some(path) = sorted.saved else { continue };
        reloader.ears.reload_begins(format!("{} ~ {} changed", observe::now(), path.display()));
        let read = project.read();
        if was_broken || read.as_ref().ok() != Some(&running) {
            reloader.ears.say_cause();
        }
        was_broken = read.is_err();
        match read {
            Ok(manifest) => {
                running = manifest.clone();
                reloader.reload(manifest).await;
            }
            Err(stop) => {
                print::say(&stop.to_string());
                print::say("           not reloaded; what ran before goes on");
            }
        }
    }
}

fn say_noisy(path: &Path) {
    let path = path.display();
    print::say(&print::paint(&format!("{} ~ {path} keeps changing: ignored from now on", observe::now()), Colour::Dim));
    print::say("           if a function writes it, `data/` is the place: what lies there is no part of a function");
}

/// The place that was asked for; otherwise the first free port.
fn listen(dev: &Dev) -> Result<TcpListener, Stop> {
    if let Some(listen) = &dev.listen {
        return serve::bind(serve::address(listen)?);
    }
    for port in FIRST_PORT..FIRST_PORT + PORTS_TRIED {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        match port::listen(address) {
            Ok(listener) => return Ok(listener),
            Err(_) => {
                let holder = port::holder(address).map(|h| format!(" by {h}")).unwrap_or_default();
                print::say(&format!("port {port} is taken{holder}; trying the next"));
            }
        }
    }
    Err(Stop::new(Code::Conflict, format!("no port from {FIRST_PORT} on is free"))
        .hint("name one with --listen 127.0.0.1:PORT"))
}

fn greet(manifest: &Manifest, address: SocketAddr, data: &Path, token: Option<&str>) {
    let base = format!("http://{address}");
    let accent = |text: String| print::paint(&text, Colour::Accent);
    print::say(&format!("kvern {} · dev · data in {}", env!("CARGO_PKG_VERSION"), data.display()));
    print::say("");
    print::say(&format!("  Gateway    {}", accent(base.clone())));
    print::say(&format!("  Console    {}", accent(format!("{base}/ui"))));
    let shown = token.map(show_token);
    if let Some((_, from)) = &shown {
        print::say(&format!("  Token      {from}; /ui asks for it as the password of any name"));
    }
    for (at, function) in manifest.functions.iter().enumerate() {
        let title = if at == 0 { "Functions" } else { "" };
        let route = function.route.as_ref().map(|r| format!("  {} {}", r.method, r.path)).unwrap_or_default();
        print::say(&format!("  {title:<10} {}  ({}){route}", function.name, function.door.describe()));
    }
    if let Some(first) = manifest.functions.first() {
        let data = sample(first);
        let header = shown.map(|(header, _)| header).unwrap_or_default();
        print::say("");
        print::say(&format!(
            "  Try        {}",
            accent(format!("curl {header}-d '{data}' {base}/v1/functions/{}", first.name))
        ));
        print::say(&format!(
            "  Later      {}",
            accent(format!("curl {header}-d '{data}' {base}/v1/functions/{}/jobs", first.name))
        ));
    }
    print::say("");
}

/// How curl sends the token, and where it is from. The token itself is not printed: terminals are recorded and shared.
fn show_token(token: &str) -> (String, String) {
    // Absolute, because the other terminal is in another folder.
    let file = std::env::var_os("KVERN_TOKEN_FILE").unwrap_or_default();
    let file = std::path::absolute(file).map(|file| file.display().to_string()).unwrap_or_default();
    let (secret, from) = match std::env::var("KVERN_TOKEN") {
        Ok(known) if known == token => ("$KVERN_TOKEN".to_owned(), "from KVERN_TOKEN".to_owned()),
        Err(_) if !file.is_empty() => (format!("$(cat {file})"), format!("from {file}")),
        _ => ("$KVERN_TOKEN".to_owned(), "from --token: set KVERN_TOKEN to it where you use curl".to_owned()),
    };
    (format!("-H \"Authorization: Bearer {secret}\" "), from)
}

/// An input to try.
fn sample(function: &Function) -> &'static str {
    match function.door {
        Door::Handler { .. } => "{}",
        Door::Exec { .. } => "hello",
    }
}

/// Keeps the data out of the user's repository.
fn ignore_in_git(data: &Path) {
    // Without it everything works as well: the user's git just shows one more folder.
    let _ = std::fs::write(data.join(".gitignore"), "*\n");
}
