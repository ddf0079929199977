//! A real browser without a screen: Chromium, driven over a pipe by its DevTools protocol
//! (<https://chromedevtools.github.io/devtools-protocol/>): JSON texts that end in a zero byte, on descriptors 3 and 4.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::needs;
use crate::wait::{until, within};

const ANSWER_DEADLINE: Duration = Duration::from_secs(60);
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);

/// It asks nobody for anything by itself.
const QUIET: [&str; 11] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1300,900",
    "--remote-debugging-pipe",
];

/// One page in a browser of its own. Dropped, the browser is killed.
#[derive(Debug)]
pub struct Page {
    process: Child,
    to: File,
    from: Receiver<Value>,
    session: String,
    sent: u64,
    /// The addresses of all requests that the page has made so far.
    pub requests: Vec<String>,
    _folder: TempDir,
}

impl Page {
    /// Opens a page; none where there is no Chromium, which has been said.
    ///
    /// # Panics
    /// If the browser does not start.
    #[must_use]
    pub fn open(address: &str) -> Option<Self> {
        if !needs::programs(&["chromium", "mkfifo"]) {
            return None;
        }
        let folder = tempfile::Builder::new().prefix("kvern-e2e-browser-").tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let made = Command::new("mkfifo").args([path("to"), path("from")]).status();
        assert!(made.is_ok_and(|status| status.success()), "no pipes");
        // The shell opens the ends in this order, and waits for us to open the others.
        let process = Command::new("sh")
            .args(["-c", "exec chromium \"$@\" 3<\"$0/to\" 4>\"$0/from\""])
            .arg(folder.path())
            .args(QUIET)
            .arg(format!("--user-data-dir={}", path("profile").display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let to = File::options().write(true).open(path("to")).expect("the browser reads");
        let from = frames(File::open(path("from")).expect("the browser writes"));
        let mut page =
            Self { process, to, from, session: String::new(), sent: 0, requests: Vec::new(), _folder: folder };
        page.attach();
        page.call("Network.enable", &json!({}));
        page.call("Page.navigate", &json!({ "url": address }));
        Some(page)
    }

    fn attach(&mut self) {
        let target = self.call("Target.createTarget", &json!({ "url": "about:blank" }))["targetId"].clone();
        let attached = self.call("Target.attachToTarget", &json!({ "targetId": target, "flatten": true }));
        self.session = attached["sessionId"].as_str().expect("a session").to_owned();
    }

    /// The value of an expression in the page.
    ///
    /// # Panics
    /// If it throws.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", &parameters);
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true in the page.
    pub fn sees(&mut self, expression: &str) {
        until(&format!("the page to say true to {expression}"), || (self.evaluate(expression) == true).then_some(()));
    }

    fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.sent += 1;
        let mut call = json!({ "id": self.sent, "method": method, "params": parameters });
        if !self.session.is_empty() {
            call["sessionId"] = self.session.as_str().into();
        }
        self.to.write_all(format!("{call}\0").as_bytes()).expect("the browser is there");
        loop {
            let frame = self.from.recv_timeout(ANSWER_DEADLINE).unwrap_or_else(|error| panic!("{method}: {error}"));
            if frame["method"] == "Network.requestWillBeSent" {
                self.requests.extend(frame["params"]["request"]["url"].as_str().map(str::to_owned));
            }
            if frame["id"] == self.sent {
                assert!(frame.get("error").is_none(), "{method}: {frame}");
                return frame["result"].clone();
            }
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // Asked first: killed, it would leave its children behind for a moment, which still write to its folder.
        let _ = self.to.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        let _ = within(CLOSE_DEADLINE, || self.process.try_wait().ok().flatten());
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Reads frames on a thread of its own, which ends with the browser.
fn frames(from: File) -> Receiver<Value> {
    let (tell, frames) = channel();
    std::thread::spawn(move || {
        for frame in BufReader::new(from).split(0) {
            let Ok(bytes) = frame else { return };
            if let Ok(value) = serde_json::from_slice(&bytes)
                && tell.send(value).is_err()
            {
                return;
            }
        }
    });
    frames
}
