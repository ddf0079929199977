//! The page at `/ui`, in a real browser: what moves is pushed, what it shows is text, and it asks nobody else.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use kvern_e2e::{Page, Server, needs, until};
use serde_json::Value;

const MANIFEST: &str = "\
[functions.good]
exec = [\"sh\", \"-c\", \"echo looking at it >&2; cat\"]

[functions.bad]
exec = [\"sh\", \"-c\", \"echo '<b>bold</b>' >&2; echo '<img src=x onerror=\\\"document.title=1\\\">' >&2; test -e mended\"]
retry = { attempts = 1 }
";
const FRAME_DEADLINE: Duration = Duration::from_secs(30);
const PAGE: [&str; 3] = ["/ui", "/ui/app.js", "/ui/style.css"];

fn start() -> Server {
    Server::start(&[("kvern.toml", MANIFEST)])
}

fn open(server: &Server) -> Option<Page> {
    let mut page = Page::open(&format!("http://{}/ui", server.http.address))?;
    page.sees("document.getElementById('live-word')?.textContent === 'live'");
    Some(page)
}

/// A row of the table: an expression for the row of this job.
fn row(id: &str) -> String {
    format!("document.querySelector('#jobs tr[data-id=\"{id}\"]')")
}

/// The event stream as the real curl reads it; ended when dropped.
struct Events {
    curl: Child,
    frames: Receiver<Value>,
}

impl Events {
    fn follow(server: &Server) -> Self {
        let address = format!("http://{}/ui/events", server.http.address);
        let mut command = Command::new("curl");
        command.args(["--silent", "--no-buffer", &address]).stdout(Stdio::piped());
        let mut curl = command.spawn().expect("curl runs");
        let lines = BufReader::new(curl.stdout.take().expect("its output")).lines();
        let (tell, frames) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let frame = line.strip_prefix("data:").and_then(|data| serde_json::from_str(data.trim()).ok());
                if frame.is_some_and(|frame: Value| tell.send(frame).is_err()) {
                    return;
                }
            }
        });
        Self { curl, frames }
    }

    fn next(&self) -> Value {
        self.frames.recv_timeout(FRAME_DEADLINE).expect("a frame in time")
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let _ = self.curl.kill();
        let _ = self.curl.wait();
    }
}

#[test]
fn a_move_is_pushed() {
    if !needs::programs(&["curl"]) {
        return;
    }
    let server = start();
    let before = server.http.submit("good", "before");
    let _ = server.http.finished(&before);
    let events = Events::follow(&server);
    let snapshot = events.next();
    assert_eq!((&snapshot["kind"], &snapshot["jobs"][0]["id"]), (&"snapshot".into(), &before.as_str().into()));
    let after = server.http.submit("good", "after");
    let told = until("the end of the job", || {
        let frame = events.next();
        let jobs = frame["jobs"].as_array().cloned().unwrap_or_default();
        jobs.into_iter().find(|job| job["id"] == after.as_str() && job["state"] == "succeeded").map(|job| (frame, job))
    });
    assert_eq!(told.0["kind"], "changes");
    assert_eq!(told.1, server.http.get(&format!("/v1/jobs/{after}")).json(), "the same fields as the API");
    let good = told.0["stats"].as_array().expect("stats").iter().find(|counts| counts["name"] == "good").cloned();
    assert_eq!(good.expect("counts")["succeeded"], 2);
}

#[test]
fn the_page_shows_jobs_as_they_move_without_a_reload() {
    let server = start();
    let before = server.http.submit("good", "before");
    let _ = server.http.finished(&before);
    let Some(mut page) = open(&server) else { return };
    page.sees(&format!("{}?.textContent.includes('succeeded')", row(&before)));
    page.evaluate("window.sameVisit = true");
    let after = server.http.submit("good", "after");
    page.sees(&format!("{}?.textContent.includes('succeeded')", row(&after)));
    page.sees("document.querySelector('#jobs tr').dataset.id > document.querySelectorAll('#jobs tr')[1].dataset.id");
    page.sees(&format!("{} === '2 succeeded'", card("good")));
    assert_eq!(page.evaluate("window.sameVisit"), true);

    page.evaluate(&format!("{}.click()", row(&after)));
    page.sees("document.querySelector('#panel .log')?.textContent === 'looking at it\\n'");
    page.sees("document.querySelector('#panel a')?.textContent.startsWith('5 bytes of')");
}

/// What a card of a function says, such as `1 scheduled`.
fn card(function: &str) -> String {
    format!(
        "[...document.querySelectorAll('.function[data-name=\"{function}\"] span')].map((s) => s.textContent).join()"
    )
}

#[test]
fn a_scheduled_job_is_not_counted_as_queued() {
    let server = start();
    let answer = server.http.post("/v1/functions/good/jobs?delay=1h", "later");
    assert_eq!(answer.status, 202, "{}", answer.text());
    let Some(mut page) = open(&server) else { return };
    page.sees(&format!("{} === '1 scheduled'", card("good")));
    page.sees(&format!("{} === 'no jobs'", card("bad")));
}

#[test]
fn the_time_of_a_running_job_passes_before_ones_eyes() {
    let server = Server::start(&[("kvern.toml", "[functions.long]\nexec = [\"sleep\", \"1000\"]\n")]);
    let id = server.http.submit("long", "");
    let Some(mut page) = open(&server) else { return };
    let took = format!("{}?.querySelector('.took').textContent", row(&id));
    page.sees(&format!("/^[0-9]+ s$/.test({took})"));
    page.evaluate(&format!("window.before = {took}; {}.click()", row(&id)));
    page.sees(&format!("{took} !== window.before"));
    page.sees("/^[0-9]+ s$/.test(document.querySelector('#panel .took')?.textContent)");
    let _ = server.http.post(&format!("/v1/jobs/{id}/cancel"), "");
    page.sees(&format!("{}?.textContent.includes('cancelled')", row(&id)));
    page.sees("ticking === undefined");
}

#[test]
fn a_filter_finds_what_is_not_among_the_latest() {
    let server = start();
    let old = server.http.submit("bad", "");
    assert_eq!(server.http.finished(&old)["state"], "failed");
    let ids: Vec<String> = (0..120).map(|n| server.http.submit("good", &n.to_string())).collect();
    for id in &ids {
        let _ = server.http.finished(id);
    }
    let Some(mut page) = open(&server) else { return };
    page.sees("document.querySelectorAll('#jobs tr').length >= 100");
    assert_eq!(page.evaluate(&format!("{} === null", row(&old))), true, "it is older than what is shown");
    page.evaluate("[...document.querySelectorAll('#states button')].find((b) => b.textContent === 'failed').click()");
    page.sees(&format!("{}?.textContent.includes('failed')", row(&old)));
    page.evaluate("document.querySelector('.function[data-name=\"good\"]').click()");
    page.sees("document.getElementById('empty').textContent.includes('No job of good is failed.')");
}

#[test]
fn an_address_leads_to_a_job() {
    let server = start();
    let id = server.http.submit("good", "{\"a\":1}");
    let _ = server.http.finished(&id);
    let Some(mut page) = Page::open(&format!("http://{}/ui#{id}", server.http.address)) else { return };
    page.sees("document.querySelector('#panel h2')?.textContent === 'good'");
    page.sees("[...document.querySelectorAll('#panel pre')].some((p) => p.textContent.includes('\"a\": 1'))");
}

#[test]
fn a_dead_letter_is_shown_as_text_and_retried_from_the_page() {
    let server = start();
    let id = server.http.submit("bad", "");
    assert_eq!(server.http.finished(&id)["state"], "failed");
    let Some(mut page) = open(&server) else { return };
    page.sees(&format!("{}?.textContent.includes('<img src=x')", row(&id)));
    page.evaluate(&format!("{}.click()", row(&id)));
    page.sees("document.querySelector('#panel .error')?.textContent.includes('<img src=x')");
    page.sees("document.querySelector('#panel .log')?.textContent.includes('<b>bold</b>')");
    assert_eq!(
        page.evaluate("document.querySelectorAll('img, #panel b, #jobs b').length"),
        0,
        "what a function says is text"
    );
    assert_eq!(page.evaluate("document.title"), "Kvern");

    std::fs::write(server.home.join("mended"), "").expect("a file");
    page.evaluate("[...document.querySelectorAll('#panel button')].find((b) => b.textContent === 'Retry').click()");
    page.sees(&format!("{}?.textContent.includes('succeeded')", row(&id)));
    page.sees("document.querySelector('#panel .state')?.textContent === 'succeeded'");
    assert_eq!(server.http.finished(&id)["state"], "succeeded");
}

#[test]
fn the_page_comes_back_when_the_server_does() {
    let mut server = start();
    let Some(mut page) = open(&server) else { return };
    server.kill();
    page.sees("document.getElementById('live').className === 'lost'");
    server.restart();
    page.sees("document.getElementById('live').className === 'live'");
    let id = server.http.submit("good", "after");
    page.sees(&format!("{}?.textContent.includes('succeeded')", row(&id)));
}

#[test]
fn the_page_asks_no_other_host() {
    let server = start();
    for path in PAGE {
        let answer = server.http.get(path);
        let policy = answer.header("content-security-policy").expect("a policy");
        assert!(policy.contains("default-src 'none'") && policy.contains("connect-src 'self'"), "{path}: {policy}");
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        let text = answer.text().replace("http://www.w3.org/2000/svg", "");
        assert!(!text.contains("http://") && !text.contains("https://") && !text.contains("src=\"//"), "{path}");
    }
    let Some(mut page) = open(&server) else { return };
    let id = server.http.submit("good", "x");
    page.sees(&format!("{}?.textContent.includes('succeeded')", row(&id)));
    page.evaluate(&format!("{}.click()", row(&id)));
    page.sees("document.querySelector('#panel .log')?.textContent === 'looking at it\\n'");
    let own = format!("http://{}/", server.http.address);
    assert!(page.requests.len() >= 4, "the browser tells of its requests: {:?}", page.requests);
    for request in &page.requests {
        assert!(request.starts_with(&own) || request.starts_with("data:"), "{request}");
    }
}
