//! A limit on the size of files (`ulimit -f`): a write over it is refused, and the server goes on with the rest.

use kvern_e2e::{Server, Start};

const FILES: &[(&str, &str)] = &[("kvern.toml", "[functions.same]\nexec = [\"cat\"]\n")];

#[test]
fn an_input_that_no_file_may_hold_does_not_end_the_server() {
    let under = ["sh", "-c", "ulimit -f 1000; exec \"$0\" \"$@\""];
    let server = Server::start_as(Start { files: FILES, under: &under, ..Start::default() });
    let large = "x".repeat(8 << 20);
    let refused = server.http.post("/v1/functions/same/jobs", &large);
    assert!(refused.status >= 500, "{}: {}", refused.status, refused.text());
    assert_eq!(server.http.post("/v1/functions/same", "hi").text(), "hi");
}
