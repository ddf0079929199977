//! A disk that lost a write, said so once, and then claims that all is well, as the kernel does for every file system: the
//! lost bytes stay readable until the next power cut. A server that starts again upon them must write them anew before it
//! puts anything behind them.
//!
//! The image of the file system lies on another one in memory, which is full; holes are punched into the image under the
//! part of the write-ahead log that is overwritten next.

use std::path::Path;

use kvern_e2e::disk::{Disk, Kind, fill, run};
use kvern_e2e::{Server, Start};

use super::fill::fill_log;
use super::load::{Load, MANIFEST};

const BELOW_MIB: u32 = 700;
/// The log is overwritten from its begin; from here on it has nowhere to go.
const HOLES_FROM: u64 = 1 << 20;
const ANSWERS: usize = 20;

#[test]
fn what_a_failed_sync_lost_takes_nothing_with_it_later_on_ext4() {
    survives(Kind::Ext4);
}

#[test]
fn what_a_failed_sync_lost_takes_nothing_with_it_later_on_xfs() {
    survives(Kind::Xfs);
}

fn survives(kind: Kind) {
    let Some(disk) = Disk::make_over_memory(kind, BELOW_MIB) else { return };
    let data = disk.data();
    let log = data.join("queue.db-wal");
    let start = Start { files: &[("kvern.toml", MANIFEST)], data: Some(&data), ..Start::default() };
    let mut server = Server::start_as(start);
    let load = Load::new(&server.http);
    for function in ["echo", "fill"] {
        assert_eq!(server.http.post(&format!("/v1/functions/{function}/pause"), "").status, 200);
    }
    load.during(|| load.goes_on(ANSWERS));
    until_begun_anew(&server, &log);

    punch(&disk, &log);
    let filler = fill(Path::new(&disk.below()));
    let mut refused = None;
    fill_log(&server.http, |answer| {
        refused = answer.filter(|answer| answer.status != 202);
        refused.is_some()
    });
    let problem = refused.expect("it was refused").json();
    assert_eq!(problem["code"], "store_unknown", "{problem}");
    assert_eq!(server.wait().code(), Some(1), "{}", server.log());
    std::fs::remove_file(filler).expect("room again");

    server.restart();
    load.is_kept();
    load.during(|| {
        load.goes_on(ANSWERS);
        load.breaks();
        disk.cut_power();
    });
    server.kill();
    disk.unmount();
    disk.mount();
    server.restart();
    load.is_kept();
    load.nothing_is_made_up();
}

/// Fills the log until it has been copied and is overwritten from its begin: it does not grow any more.
fn until_begun_anew(server: &Server, log: &Path) {
    let (mut bytes, mut same) = (0, 0);
    fill_log(&server.http, |answer| {
        assert!(answer.is_some_and(|answer| answer.status == 202));
        let now = log.metadata().expect("a log").len();
        same = if now == bytes { same + 1 } else { 0 };
        bytes = now;
        same == 2
    });
    assert!(bytes > 2 * HOLES_FROM, "the log has {bytes} bytes");
}

/// Takes the blocks of the later part of a file away from under it.
fn punch(disk: &Disk, file: &Path) {
    let image = disk.image().display().to_string();
    let mut punched = 0;
    for (in_file, in_image, bytes) in Disk::extents(file) {
        let skipped = HOLES_FROM.saturating_sub(in_file).min(bytes);
        let (from, bytes) = (in_image + skipped, bytes - skipped);
        if bytes > 0 {
            run("fallocate", &["--punch-hole", "-o", &from.to_string(), "-l", &bytes.to_string(), &image]);
            punched += bytes;
        }
    }
    assert!(punched > 0, "the file is shorter than that");
}
