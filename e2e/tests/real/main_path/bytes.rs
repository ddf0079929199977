//! Bytes are bytes: what goes in comes out, whatever it is, small or beside the database.

use kvern_e2e::{Server, needs};

const ECHO_PY: &str = "def echo(event):\n    return event\n\ndef png(event):\n    return event, \"image/png\"\n";
const ECHO_MJS: &str = "export default (event) => event;\n";
const MANIFEST: &str = "\
[functions.cat]
exec = [\"cat\"]

[functions.python]
handler = \"echo.py:echo\"

[functions.png]
handler = \"echo.py:png\"

[functions.node]
handler = \"echo.mjs\"
";

/// Bytes of every value in no order that compresses: xorshift (Marsaglia, 2003).
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let next = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    });
    next.take(bytes).collect()
}

#[test]
fn what_goes_in_comes_out_byte_for_byte() {
    if !needs::programs(&["python3", "node"]) {
        return;
    }
    let server = Server::start(&[("kvern.toml", MANIFEST), ("echo.py", ECHO_PY), ("echo.mjs", ECHO_MJS)]);
    let headers = [("content-type", "application/octet-stream")];
    // Inline, the last inline size, the first blob, and the megabyte.
    for bytes in [0, 1, 64 << 10, (64 << 10) + 1, 1 << 20] {
        let input = noise(bytes);
        for function in ["cat", "python", "node"] {
            let call = server.http.ask("POST", &format!("/v1/functions/{function}"), &headers, &input);
            assert_eq!(call.status, 200, "{function}: {}", call.text());
            assert!(call.body == input, "{function} changed {bytes} bytes in a call");
            let accepted = server.http.ask("POST", &format!("/v1/functions/{function}/jobs"), &headers, &input);
            let id = accepted.json()["id"].as_str().expect("an id").to_owned();
            let job = server.http.finished(&id);
            assert_eq!(job["state"], "succeeded", "{job}");
            let of_job = |what: &str| server.http.get(&format!("/v1/jobs/{id}/{what}")).body;
            assert!(of_job("result") == input, "{function} changed {bytes} bytes in a job");
            assert!(of_job("input") == input, "the stored input is another");
        }
    }
}

#[test]
fn large_bytes_lie_beside_the_database_and_survive_a_kill() {
    let mut server = Server::start(&[("kvern.toml", MANIFEST), ("echo.py", ECHO_PY), ("echo.mjs", ECHO_MJS)]);
    let input = noise(1 << 20);
    let id =
        server.http.ask("POST", "/v1/functions/cat/jobs", &[], &input).json()["id"].as_str().expect("an id").to_owned();
    assert_eq!(server.http.finished(&id)["state"], "succeeded");
    let blobs = files_below(&server.data.join("blobs"));
    assert_eq!(blobs.iter().filter(|bytes| **bytes == 1 << 20).count(), 2, "input and result: {blobs:?}");
    server.kill();
    server.restart();
    assert!(server.http.get(&format!("/v1/jobs/{id}/result")).body == input);
}

#[test]
fn the_function_names_the_type_of_its_result() {
    if !needs::programs(&["python3", "node"]) {
        return;
    }
    let server = Server::start(&[("kvern.toml", MANIFEST), ("echo.py", ECHO_PY), ("echo.mjs", ECHO_MJS)]);
    let ask = |kind: &str, body: &[u8]| server.http.ask("POST", "/v1/functions/png", &[("content-type", kind)], body);
    let answer = ask("image/png", b"\x89PNG");
    assert_eq!((answer.header("content-type"), answer.body.as_slice()), (Some("image/png"), &b"\x89PNG"[..]));
}

/// The sizes of all files below a folder.
fn files_below(folder: &std::path::Path) -> Vec<u64> {
    let entries = std::fs::read_dir(folder).expect("a folder").flatten();
    let sizes = entries.flat_map(|entry| match entry.metadata() {
        Ok(about) if about.is_dir() => files_below(&entry.path()),
        Ok(about) => vec![about.len()],
        Err(_) => Vec::new(),
    });
    sizes.collect()
}

#[test]
fn the_server_does_without_huge_pages_and_functions_have_them() {
    let manifest = "[functions.thp]\nexec = [\"grep\", \"THP_enabled\", \"/proc/self/status\"]\n";
    let server = Server::start(&[("kvern.toml", manifest)]);
    // Kernels before 5.0 do not tell.
    let Some(line) = thp_line(server.pid()) else { return };
    assert_eq!(line, "0");
    let answer = server.http.post("/v1/functions/thp", "");
    assert_eq!(answer.text().split_whitespace().last(), Some("1"), "{}", answer.text());
}

fn thp_line(pid: u32) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("THP_enabled:"))?;
    Some(line.trim().to_owned())
}
