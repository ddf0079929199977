//! A disk that flips a bit in a stored file: the wrong bytes reach neither a function nor a client as if they were right.

use std::path::PathBuf;

use kvern_e2e::Server;
use serde_json::Value;

const MANIFEST: &str = "[functions.same]\nexec = [\"cat\"]\n";
const BYTES: usize = 300_000;

#[test]
fn damaged_files_are_reported_and_harm_no_other_job() {
    let server = Server::start(&[("kvern.toml", MANIFEST)]);
    let done = submit(&server);
    assert_eq!(server.http.finished(&done)["state"], "succeeded");
    let result = format!("/v1/jobs/{done}/result");
    assert_eq!(server.http.get(&result).body.len(), BYTES);
    let before = files(&server);
    assert_eq!(server.http.post("/v1/functions/same/pause", "").status, 200);
    let waiting = submit(&server);
    for file in files(&server) {
        flip(&file);
    }
    let whole = submit(&server);

    let cut = server.http.get(&result);
    assert!(cut.body.len() < BYTES, "the answer breaks off before its end");
    for file in before {
        std::fs::remove_file(file).expect("it was there");
    }
    let gone = server.http.get(&result);
    assert_eq!((gone.status, &gone.json()["code"]), (500, &"damaged".into()), "{}", gone.text());

    assert_eq!(server.http.post("/v1/functions/same/resume", "").status, 200);
    let failed: Value = server.http.finished(&waiting);
    assert_eq!((&failed["state"], &failed["attempt"]), (&"failed".into(), &1.into()), "{failed}");
    assert_eq!(failed["error"]["code"], "damaged", "{failed}");
    assert_eq!(server.http.finished(&whole)["state"], "succeeded");
}

fn submit(server: &Server) -> String {
    let accepted = server.http.ask("POST", "/v1/functions/same/jobs", &[], &[b'x'; BYTES]);
    accepted.json()["id"].as_str().expect("an id").to_owned()
}

fn files(server: &Server) -> Vec<PathBuf> {
    let folder = std::fs::read_dir(server.data.join("blobs")).expect("a folder");
    folder.map(|entry| entry.expect("a file").path()).collect()
}

fn flip(file: &PathBuf) {
    let mut bytes = std::fs::read(file).expect("there");
    bytes[BYTES / 2] ^= 1;
    std::fs::write(file, bytes).expect("written");
}
