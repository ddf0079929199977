//! The power fails while clients submit: the file system is shut down under the server, so that whatever it has not
//! written is lost. What was acknowledged before the cut was issued is there after the restart.
//!
//! (A server lives on while its file system dies, and may answer in that moment from a write that went through and is then
//! undone: no power cut does that. So answers that came later count for nothing.)

use std::time::{SystemTime, UNIX_EPOCH};

use kvern_e2e::disk::{Disk, Kind};
use kvern_e2e::{Server, Start};

use super::load::{Load, MANIFEST};

/// `CUTS=100` makes more.
const CUTS: usize = 20;
/// Most answers between two cuts.
const ANSWERS_MAX: usize = 60;

#[test]
fn what_was_acknowledged_before_a_power_cut_is_there_on_ext4() {
    survives_power_cuts(Kind::Ext4);
}

#[test]
fn what_was_acknowledged_before_a_power_cut_is_there_on_xfs() {
    survives_power_cuts(Kind::Xfs);
}

fn survives_power_cuts(kind: Kind) {
    let Some(disk) = Disk::make(kind) else { return };
    let data = disk.data();
    let start = Start { files: &[("kvern.toml", MANIFEST)], data: Some(&data), ..Start::default() };
    let mut server = Server::start_as(start);
    let load = Load::new(&server.http);
    let cuts = std::env::var("CUTS").map_or(CUTS, |cuts| cuts.parse().expect("CUTS is a number"));
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64 | 1);
    let mut state = seed;
    load.during(|| {
        for _ in 0..cuts {
            // xorshift (Marsaglia, 2003)
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let more = 1 + (state % ANSWERS_MAX as u64) as usize;
            load.goes_on(more);
            load.breaks();
            disk.cut_power();
            server.kill();
            disk.unmount();
            disk.mount();
            server.restart();
            load.is_kept();
            load.mended();
        }
    });
    let heard = load.heard();
    let counts = (heard.acknowledged.len(), heard.succeeded.len());
    assert!(counts.0 >= cuts && counts.1 > 0, "this was no test: {counts:?} acknowledged and seen to succeed");
    drop(heard);
    load.nothing_is_made_up();
}
