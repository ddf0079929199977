//! A real server that is not root's, as it should be.

use std::fs::{File, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::files::write;
use crate::http::Http;
use crate::server::{free_port, kvern};
use crate::wait::until;

/// A user who is not root and owns nothing.
pub const USER: u32 = 65_534;

/// A running `kvern serve` of that user; killed when dropped. Needs root and `setpriv`.
#[derive(Debug)]
pub struct Nobody {
    /// The way to it.
    pub http: Http,
    process: Child,
    _folder: TempDir,
}

impl Nobody {
    /// Starts it with these files and variables, and waits until it is ready.
    ///
    /// # Panics
    /// If it does not get ready.
    #[must_use]
    pub fn start(files: &[(&str, &str)], variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::Builder::new().prefix("kvern-e2e-").tempdir().expect("a folder");
        let home = folder.path();
        std::fs::set_permissions(home, Permissions::from_mode(0o755)).expect("others may come in");
        files.iter().for_each(|(name, text)| write(home, name, text));
        // Where the binary lies, others may not come in.
        std::fs::copy(kvern(), home.join("kvern")).expect("a copy");
        std::fs::create_dir(home.join("data")).expect("a folder");
        std::fs::set_permissions(home.join("data"), Permissions::from_mode(0o700)).expect("a mode");
        chown(home.join("data"), Some(USER), Some(USER)).expect("it is theirs");
        let http = Http { address: SocketAddr::from(([127, 0, 0, 1], free_port())) };
        let process = launch(home, &http, variables);
        let server = Self { http, process, _folder: folder };
        until("the server to be ready", || {
            server.http.try_ask("GET", "/readyz", &[], b"").ok().filter(|answer| answer.status == 200)
        });
        server
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Nobody {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn launch(home: &Path, http: &Http, variables: &[(&str, &str)]) -> Child {
    let user = USER.to_string();
    Command::new("setpriv")
        .args(["--reuid", &user, "--regid", &user, "--clear-groups"])
        .arg(home.join("kvern"))
        .args(["serve", "--data", "data", "--listen", &http.address.to_string()])
        .current_dir(home)
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stderr(File::create(home.join("log")).expect("a file"))
        .spawn()
        .expect("it starts")
}
