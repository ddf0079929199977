//! Which parts run in this process, and what each role takes: decided before anything is opened.

use std::path::{Path, PathBuf};

use kvern_manifest::ServerSettings;

use crate::cli::{Role, Serve};
use crate::exit::{Outcome, Stop};

/// What this process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Everything.
    All,
    /// Gateway and queue, with this socket for workers; without one, that in its data directory.
    Gateway { socket: Option<PathBuf> },
    /// A worker of the gateway behind this socket.
    Worker { queue: PathBuf },
}

/// Where jobs are.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Here,
    Behind(PathBuf),
}

/// What the flags and the manifest make of this process. `is_passed` if a socket was passed in.
pub(crate) fn plan(serve: &Serve, manifest: &ServerSettings, is_passed: bool) -> Result<Plan, Stop> {
    let given = serve.queue.as_deref().or(manifest.queue.as_deref());
    let place = given.map(place).transpose()?;
    match serve.role {
        Role::Worker => {
            takes_nothing_of_a_gateway(serve, is_passed)?;
            match place {
                Some(Place::Behind(queue)) => Ok(Plan::Worker { queue }),
                _ => Err(Stop::usage("a worker needs the queue of a gateway").hint(
                    "name its socket: --queue unix:/var/lib/kvern/queue.sock, as `kvern serve --role gateway` says at its start",
                )),
            }
        }
        role => {
            if let Some(Place::Behind(path)) = place {
                return Err(foreign_queue(role, &path));
            }
            match (role, &serve.socket) {
                (Role::All, Some(_)) => Err(Stop::usage("--socket is for workers apart from their gateway")
                    .hint("leave it out, or run two processes: --role gateway and --role worker")),
                (Role::All, None) => Ok(Plan::All),
                (_, socket) => Ok(Plan::Gateway { socket: socket.clone() }),
            }
        }
    }
}

fn place(queue: &str) -> Result<Place, Stop> {
    match (queue, queue.strip_prefix("unix:")) {
        ("sqlite", _) => Ok(Place::Here),
        (_, Some("")) => Err(Stop::usage("`unix:` names no socket").hint("write the path behind it: unix:PATH")),
        (_, Some(path)) => Ok(Place::Behind(path.into())),
        _ => Err(Stop::usage(format!("`{queue}` is not a queue that this version has"))
            .hint("leave --queue out, or write `sqlite`: jobs are kept in the data directory")
            .hint("a worker apart from its gateway takes `unix:PATH`, the socket of that gateway")),
    }
}

fn foreign_queue(role: Role, path: &Path) -> Stop {
    let stop = Stop::usage(format!("`unix:{}` is the queue of another process", path.display()));
    match role {
        Role::Gateway => stop.hint(
            "a gateway has the queue itself: leave --queue out, and say where workers find it with --socket PATH",
        ),
        _ => stop.hint("take --role worker with it, and run a gateway beside it: --role gateway"),
    }
}

/// A worker faces nobody.
fn takes_nothing_of_a_gateway(serve: &Serve, is_passed: bool) -> Outcome {
    let given = [
        ("--listen (or KVERN_LISTEN)", serve.listen.is_some()),
        ("--host (or KVERN_HOSTS)", !serve.hosts.is_empty()),
        ("--insecure", serve.insecure),
        ("--socket (or KVERN_SOCKET)", serve.socket.is_some()),
        ("the socket that was passed in", is_passed),
    ];
    match given.into_iter().find(|(_, is_given)| *is_given) {
        Some((what, _)) => Err(Stop::usage(format!("a worker listens nowhere: {what} is for its gateway"))
            .hint("leave it out here, and give it to `kvern serve --role gateway`")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Verb};

    fn planned(arguments: &[&str], manifest: Option<&str>) -> Result<Plan, String> {
        let cli = Cli::try_parse_from(["kvern", "serve"].iter().chain(arguments)).expect("it parses");
        let Verb::Serve(serve) = cli.verb else { panic!("it is serve") };
        let manifest = ServerSettings { queue: manifest.map(str::to_owned), ..ServerSettings::default() };
        plan(&serve, &manifest, false).map_err(|stop| stop.to_string())
    }

    #[test]
    fn each_role_takes_what_it_needs() {
        let worker = || Plan::Worker { queue: "/run/q".into() };
        assert_eq!(planned(&[], None), Ok(Plan::All));
        assert_eq!(planned(&["--queue", "sqlite"], None), Ok(Plan::All));
        assert_eq!(planned(&["--role", "gateway"], Some("sqlite")), Ok(Plan::Gateway { socket: None }));
        let socket = Some("/run/q".into());
        assert_eq!(planned(&["--role", "gateway", "--socket", "/run/q"], None), Ok(Plan::Gateway { socket }));
        assert_eq!(planned(&["--role", "worker", "--queue", "unix:/run/q"], None), Ok(worker()));
        assert_eq!(planned(&["--role", "worker"], Some("unix:/run/q")), Ok(worker()));
        assert_eq!(planned(&["--role", "worker", "--queue", "unix:/run/q"], Some("sqlite")), Ok(worker()));
    }

    #[test]
    fn what_does_not_go_together_is_refused_with_what_to_do() {
        let worker = ["--role", "worker", "--queue", "unix:/run/q"];
        let with = |more: &[&'static str]| [&worker[..], more].concat();
        let cases: Vec<(Vec<&str>, &str, &str)> = vec![
            (vec!["--role", "worker"], "needs the queue of a gateway", "--queue unix:"),
            (vec!["--role", "worker", "--queue", "sqlite"], "needs the queue of a gateway", "--queue unix:"),
            (vec!["--role", "worker", "--queue", "unix:"], "names no socket", "unix:PATH"),
            (vec!["--role", "gateway", "--queue", "unix:/q"], "another process", "--socket PATH"),
            (vec!["--queue", "unix:/q"], "another process", "--role worker"),
            (vec!["--queue", "redis://x"], "not a queue that this version has", "sqlite"),
            (vec!["--socket", "/q"], "--socket is for workers", "leave it out"),
            (with(&["--listen", "127.0.0.1:1"]), "listens nowhere: --listen", "--role gateway"),
            (with(&["--host", "x"]), "listens nowhere: --host", "--role gateway"),
            (with(&["--insecure"]), "listens nowhere: --insecure", "--role gateway"),
            (with(&["--socket", "/q"]), "listens nowhere: --socket", "--role gateway"),
        ];
        for (arguments, what, hint) in cases {
            let said = planned(&arguments, None).expect_err("refused");
            assert!(said.contains(what) && said.contains(hint), "{arguments:?}: {said}");
        }
    }
}
