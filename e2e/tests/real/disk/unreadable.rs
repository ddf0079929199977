//! A disk that gives back other bytes than it took, or none: nobody gets wrong bytes, the jobs concerned fail with the
//! reason, the others go on, and nothing panics.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use kvern_e2e::disk::{Disk, Kind, run};
use kvern_e2e::{Http, Server, Start};

const MANIFEST: &str = "\
[functions.same]
exec = [\"cat\"]

[functions.waits]
exec = [\"cat\"]
";
const JOBS: usize = 20;
/// Of each kind, those whose bytes are damaged.
const DAMAGED: usize = 5;
/// Places in the database, one after the other.
const PLACES: usize = 12;

/// A text that is nowhere else on the disk.
fn text(kind: &str, number: usize) -> String {
    format!("the {kind} with number {number:03}, ").repeat(20)
}

fn submit(http: &Http, function: &str) -> Vec<String> {
    let path = format!("/v1/functions/{function}/jobs");
    let texts = (0..JOBS).map(|number| text(function, number));
    texts.map(|text| http.post(&path, &text).json()["id"].as_str().expect("an id").to_owned()).collect()
}

/// Changes these texts wherever the database has them, and nothing else: a server may be writing to it.
fn damage(database: &Path, function: &str) {
    let bytes = std::fs::read(database).expect("a database");
    let file = File::options().write(true).open(database).expect("a database");
    for number in 0..DAMAGED {
        let wanted = text(function, number).into_bytes();
        let places: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(&wanted)).collect();
        assert!(!places.is_empty(), "the database has {function} {number}");
        for at in places {
            file.write_all_at(&[bytes[at + 5] ^ 1], at as u64 + 5).expect("it is written in place");
        }
    }
}

fn has_not_panicked(server: &Server) {
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

#[test]
fn damaged_rows_fail_their_jobs_and_no_other() {
    let mut server = Server::start(&[("kvern.toml", MANIFEST)]);
    let database = server.data.join("queue.db");
    let http = server.http.clone();
    let done = submit(&http, "same");
    done.iter().for_each(|id| assert_eq!(http.finished(id)["state"], "succeeded"));
    assert_eq!(http.post("/v1/functions/waits/pause", "").status, 200);
    let waiting = submit(&http, "waits");
    // A start copies the log into the database.
    server.kill();
    server.restart();
    server.kill();
    damage(&database, "waits");
    server.restart();

    assert_eq!(http.post("/v1/functions/waits/resume", "").status, 200);
    for (number, id) in waiting.iter().enumerate() {
        let job = http.finished(id);
        if number < DAMAGED {
            assert_eq!((&job["state"], &job["error"]["code"]), (&"failed".into(), &"damaged".into()), "{job}");
        } else {
            assert_eq!(job["state"], "succeeded", "{job}");
        }
    }
    // Nobody has read these since the start.
    damage(&database, "same");
    for (number, id) in done.iter().enumerate() {
        let answer = http.get(&format!("/v1/jobs/{id}/result"));
        if number < DAMAGED {
            assert_eq!((answer.status, &answer.json()["code"]), (500, &"damaged".into()), "{}", answer.text());
        } else {
            assert_eq!((answer.status, answer.text()), (200, text("same", number)));
        }
    }
    assert_eq!(http.finished(&http.submit("same", "1"))["state"], "succeeded");
    has_not_panicked(&server);
}

#[test]
fn a_database_with_flipped_bits_is_refused_or_served_without_a_panic() {
    let mut server = Server::start(&[("kvern.toml", MANIFEST)]);
    submit(&server.http, "same").iter().for_each(|id| drop(server.http.finished(id)));
    assert_eq!(server.http.post("/v1/functions/waits/pause", "").status, 200);
    let waiting = submit(&server.http, "waits");
    server.signal(rustix::process::Signal::TERM);
    assert!(server.wait().success());
    let database = server.data.join("queue.db");
    let whole = std::fs::read(&database).expect("a database");
    for place in 0..PLACES {
        let mut bytes = whole.clone();
        let at = place * whole.len() / PLACES;
        bytes[at..at + 64].iter_mut().for_each(|byte| *byte ^= 0x55);
        for name in ["queue.db-wal", "queue.db-shm"] {
            let _ = std::fs::remove_file(server.data.join(name));
        }
        std::fs::write(&database, bytes).expect("it is written");
        let before = server.log().len();
        if let Err(status) = server.try_restart() {
            let said = server.log().split_off(before);
            assert!(status.code() == Some(1) || status.code() == Some(4), "{status}: {said}");
            assert!(said.contains("kvern doctor") || said.contains("another program"), "it says what to do: {said}");
        } else {
            serves(&server.http, &waiting);
            server.kill();
        }
        has_not_panicked(&server);
    }
}

/// It answers everything, be it with an error.
fn serves(http: &Http, jobs: &[String]) {
    for id in jobs {
        let input = http.get(&format!("/v1/jobs/{id}/input"));
        assert!(matches!(input.status, 200 | 404 | 500), "{}", input.text());
    }
    let _ = http.get("/v1/jobs?limit=500");
    let _ = http.post("/v1/functions/same/jobs", "1");
    assert_eq!(http.get("/healthz").status, 200);
}

#[test]
fn a_disk_that_cannot_be_read_harms_no_bytes_and_ends_in_no_panic() {
    let Some(disk) = Disk::make(Kind::Ext4) else { return };
    let data = disk.data();
    let mut server =
        Server::start_as(Start { files: &[("kvern.toml", MANIFEST)], data: Some(&data), ..Start::default() });
    let http = server.http.clone();
    for function in ["same", "waits"] {
        assert_eq!(http.post(&format!("/v1/functions/{function}/pause"), "").status, 200);
    }
    let input = |number: usize| text("input", number).repeat(60);
    let submit = |number| http.post("/v1/functions/same/jobs", &input(number)).json()["id"].as_str().map(str::to_owned);
    let ids: Vec<String> = (0..200).map(|number| submit(number).expect("an id")).collect();
    server.kill();
    server.restart();
    // The end of the image is gone, and with it the blocks of the file system that lie there.
    let database = data.join("queue.db");
    let extents = Disk::extents(&database);
    let (_, in_image, bytes) = extents.iter().max_by_key(|(_, _, bytes)| bytes).expect("there is one");
    let image = std::fs::File::options().write(true).open(disk.image()).expect("it is there");
    image.set_len(in_image + bytes / 2).expect("it is cut");
    let database = database.display().to_string();
    run("dd", &[&format!("of={database}"), "oflag=nocache", "conv=notrunc,fdatasync", "count=0", "status=none"]);

    let mut unreadable = 0;
    for (number, id) in ids.iter().enumerate() {
        let answer = http.get(&format!("/v1/jobs/{id}/input"));
        match answer.status {
            200 => assert!(answer.text() == input(number), "other bytes than were sent"),
            500 | 503 => unreadable += 1,
            _ => panic!("{}", answer.text()),
        }
    }
    assert!(unreadable > 0, "everything can be read");
    assert_eq!(http.get("/healthz").status, 200);
    has_not_panicked(&server);
    server.kill();
    let before = server.log().len();
    if let Err(status) = server.try_restart() {
        let said = server.log().split_off(before);
        assert!(status.code() == Some(1) && said.contains(&data.display().to_string()), "{status}: {said}");
    }
    has_not_panicked(&server);
}
