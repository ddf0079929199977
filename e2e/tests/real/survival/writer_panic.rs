//! A panic of the thread that writes: nothing of the transaction that it was in counts, the store is sealed, and the server
//! ends so that its supervisor starts another. No bug does that that we know of, so the binary with mistakes in it does: it
//! panics when a function is paused, with the transaction open and other operations in it.

use kvern_e2e::server::kvern_known_bad;
use kvern_e2e::{Server, Start};

use crate::disk::load::{Load, MANIFEST};

/// Acknowledgements before the panic, so that jobs wait, run and have ended.
const BEFORE: usize = 60;
const AFTER: usize = 20;

#[test]
fn a_writer_that_panics_ends_the_server_and_loses_nothing() {
    let mut server = Server::start_as(Start {
        files: &[("kvern.toml", MANIFEST)],
        binary: Some(kvern_known_bad()),
        under: &["env", "KVERN_KNOWN_BAD=panic_in_writer"],
        ..Start::default()
    });
    let load = Load::new(&server.http);
    let status = load.during(|| {
        load.goes_on(BEFORE);
        let pause = server.http.try_ask("POST", "/v1/functions/fill/pause", &[], b"");
        // It was on its way, so its fate is unknown, or the server was gone before it could say so.
        assert!(pause.as_ref().is_ok_and(|answer| answer.status == 503) || pause.is_err(), "{pause:?}");
        server.wait()
    });
    assert_eq!(status.code(), Some(1), "{}", server.log());
    for words in ["panicked", "the writer panics within a transaction", "its writer ended"] {
        assert!(server.log().contains(words), "it does not say `{words}`: {}", server.log());
    }

    server.restart_alone();
    load.is_kept();
    load.nothing_is_made_up();
    let function = server.http.get("/v1/functions/fill").json();
    assert_eq!(function["paused"], false, "the transaction is gone as a whole: {function}");
    load.during(|| load.goes_on(AFTER));
    load.is_kept();
}
