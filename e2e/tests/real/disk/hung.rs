//! A disk that does not answer, and one that takes its time. Nobody waits for ever, nothing piles up in memory, the
//! process lives and says that it is not ready; once the disk answers, all goes on.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use kvern_e2e::disk::{Disk, Kind};
use kvern_e2e::{Http, Server, Start, needs, until};

use super::load::{Load, MANIFEST};

/// Jobs that run while the disk hangs: one for all of the time, others one after the other in instances that are there
/// already, each for long enough to be marked on the disk.
const RUNNING: &str = "\
[functions.hold]
exec = [\"sh\", \"-c\", \"until test -e go; do sleep 0.05; done\"]

[functions.slow]
handler = \"slow.py:slow\"
concurrency = 2
";
const SLOW: &str = "import time\n\ndef slow(event):\n    time.sleep(1.3)\n";
const SLOW_JOBS: usize = 30;
/// A lease that nobody renewed is over by then, and a submit has waited too long.
const HANGS_FOR: Duration = Duration::from_secs(13);
/// Inputs that are sent and not waited for, in waves: four times what may be in memory.
const WAVES: usize = 4;
const WAVE_INPUTS: usize = 800;
static WAVE_INPUT: [u8; 60_000] = [b'x'; 60_000];
/// The inbox of the queue and the bodies in flight, 64 MiB each, and some more.
const GROWTH_MIB_MAX: u64 = 150;

#[test]
fn a_disk_that_hangs_holds_nobody_for_ever_and_loses_nothing() {
    let Some(disk) = Disk::make(Kind::Ext4).filter(|_| needs::programs(&["python3"])) else { return };
    let data = disk.data();
    let manifest = format!("{MANIFEST}\n{RUNNING}");
    let files = [("kvern.toml", manifest.as_str()), ("slow.py", SLOW)];
    let server = Server::start_as(Start { files: &files, data: Some(&data), ..Start::default() });
    let http = &server.http;
    let held = http.submit("hold", "1");
    let slow: Vec<String> = (0..SLOW_JOBS).map(|_| http.submit("slow", "1")).collect();
    assert!(slow.iter().take(3).all(|id| http.finished(id)["state"] == "succeeded"), "the instances are warm");
    until("the job to run", || (http.get(&format!("/v1/jobs/{held}")).json()["state"] == "running").then_some(()));
    let load = Load::new(http);
    load.during(|| {
        load.goes_on(20);
        let before = resident_mib(&server);
        let frozen = disk.freeze();
        let began = Instant::now();
        let asking = http.clone();
        let waiting = std::thread::spawn(move || asking.post("/v1/functions/fill/jobs", "1"));
        let waves: Vec<_> = (0..WAVES).map(|_| wave(http)).collect();
        until("the disk to hang for a while", || {
            assert_eq!(http.get("/healthz").status, 200, "it lives");
            (began.elapsed() > HANGS_FOR).then_some(())
        });
        let waited = waiting.join().expect("an answer");
        assert_eq!((waited.status, &waited.json()["code"]), (503, &"store_unknown".into()), "{}", waited.text());
        let problem = http.get("/readyz").json();
        assert_eq!((&problem["status"], &problem["code"]), (&503.into(), &"store_unavailable".into()), "{problem}");
        let asked = Instant::now();
        let refused = http.post("/v1/functions/echo/jobs", "1");
        assert_eq!((refused.status, &refused.json()["code"]), (503, &"store_unavailable".into()), "{}", refused.text());
        assert!(
            refused.header("retry-after").is_some() && asked.elapsed() < Duration::from_secs(5),
            "it is not let in"
        );
        let growth = resident_mib(&server).saturating_sub(before);
        assert!(growth < GROWTH_MIB_MAX, "{growth} MiB more");
        drop((frozen, waves));

        until("it to be ready again", || (http.get("/readyz").status == 200).then_some(()));
        load.goes_on(20);
    });
    told_the_truth(&load);
    std::fs::write(server.home.join("go"), "").expect("the home is on another disk");
    for id in std::iter::once(&held).chain(&slow) {
        let job = http.finished(id);
        let ran = (&job["state"], job["attempts"].as_array().map(Vec::len), &job["interruptions"]);
        assert_eq!(ran, (&"succeeded".into(), Some(1), &0.into()), "{job}");
    }
    assert!(!server.log().contains("leases ran out"), "{}", server.log());
    load.is_kept();
    load.nothing_is_made_up();
}

/// Nobody heard that a job failed. Bodies that wait for the disk may fill the memory that is set aside for them.
fn told_the_truth(load: &Load) {
    for answer in &load.heard().refused {
        let code = answer.json()["code"].as_str().unwrap_or_default().to_owned();
        let is_honest = ["store_unavailable", "store_unknown", "too_busy"].contains(&code.as_str());
        assert!(answer.status == 503 && is_honest && answer.header("retry-after").is_some(), "{}", answer.text());
    }
}

/// Sends many inputs, and leaves without an answer.
fn wave(http: &Http) -> Vec<TcpStream> {
    let head = format!(
        "POST /v1/functions/fill/jobs HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n\r\n",
        http.address,
        WAVE_INPUT.len()
    );
    let send = || -> std::io::Result<TcpStream> {
        let mut stream = TcpStream::connect(http.address)?;
        stream.set_write_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(head.as_bytes())?;
        stream.write_all(&WAVE_INPUT)?;
        Ok(stream)
    };
    // Those that are refused do not matter. The last ones of a wave are kept open, the others hang up.
    let mut sent: Vec<TcpStream> = (0..WAVE_INPUTS).filter_map(|_| send().ok()).collect();
    sent.split_off(sent.len() / 2)
}

fn resident_mib(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") >> 10
}

#[test]
fn a_slow_disk_makes_submits_slow_and_refuses_none() {
    if !needs::programs(&["strace"]) {
        return;
    }
    let inject = "inject=fdatasync,fsync:delay_enter=300000";
    let under =
        ["strace", "-D", "--seccomp-bpf", "-f", "-q", "-e", "trace=fdatasync,fsync", "-e", inject, "-o", "/dev/null"];
    let mut server = Server::start_as(Start { files: &[("kvern.toml", MANIFEST)], under: &under, ..Start::default() });
    let load = Load::new(&server.http);
    load.during(|| load.goes_on(30));
    assert!(load.heard().refused.is_empty(), "{:?}", load.heard().refused.first());
    server.kill();
    server.restart_alone();
    load.is_kept();
    load.nothing_is_made_up();
}
