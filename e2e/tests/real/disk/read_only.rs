//! A file system that turns read-only under the server, as ext4 does when its journal cannot be written.

use kvern_e2e::disk::{Disk, Kind};
use kvern_e2e::{Server, Start};

use super::failed_sync::are_honest;
use super::load::{Load, MANIFEST};

#[test]
fn a_disk_that_turns_read_only_ends_the_server_and_loses_nothing() {
    let Some(disk) = Disk::make(Kind::Ext4) else { return };
    let data = disk.data();
    let start = Start { files: &[("kvern.toml", MANIFEST)], data: Some(&data), ..Start::default() };
    let mut server = Server::start_as(start);
    let load = Load::new(&server.http);
    let status = load.during(|| {
        load.goes_on(20);
        // What the file system accepted in its last moment it may not have kept.
        load.breaks();
        disk.turn_read_only();
        server.wait()
    });
    assert_eq!(status.code(), Some(1), "{}", server.log());
    _ = are_honest(&load.heard().refused);

    let (data, address) = (data.display().to_string(), server.http.address.to_string());
    let (code, _, said) = server.cli(&["serve", "--data", &data, "--listen", &address]);
    assert_eq!(code, 1, "it does not start there: {said}");
    assert!(said.contains("ead-only"), "it says why: {said}");

    disk.unmount();
    disk.mount();
    server.restart();
    load.is_kept();
    load.nothing_is_made_up();
}
