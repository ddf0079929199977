//! What a job says does not reach the terminal as commands: no cursor, no title, no turned text. Raw bytes stay raw.

use kvern_e2e::{Server, needs};

const MANIFEST: &str = "[functions.evil]\nhandler = \"evil.py:evil\"\nretry = { attempts = 1 }\n";
const CODE: &str = "\
def evil():
    print('\\x1b]0;owned\\x07')
    raise ValueError('\\x1b]0;pwn\\x07 \\u202e\\x9b2J')
";

fn obeyed(text: &str) -> bool {
    text.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}')
}

#[test]
fn a_job_does_not_command_the_terminal() {
    if !needs::programs(&["python3"]) {
        return;
    }
    let server = Server::start(&[("kvern.toml", MANIFEST), ("evil.py", CODE)]);
    let id = server.http.submit("evil", "{}");
    assert_eq!(server.http.finished(&id)["state"], "failed");
    let verbs: [&[&str]; 8] = [
        &["jobs", "get", &id],
        &["jobs", "get", &id, "-o", "json"],
        &["jobs", "list"],
        &["jobs", "list", "-o", "json"],
        &["jobs", "result", &id],
        &["logs"],
        &["invoke", "evil", "-d", "{}"],
        &["invoke", "evil", "-d", "{}", "--wait", "30s"],
    ];
    for verb in verbs {
        let (_, stdout, said) = server.cli(verb);
        assert!(!obeyed(&stdout) && !obeyed(&said), "{verb:?}: {stdout:?} {said:?}");
        assert!([&stdout, &said].iter().any(|text| text.contains("pwn") || text.contains("owned")), "{verb:?}");
    }
    let shown: serde_json::Value = serde_json::from_str(&server.cli(verbs[1]).1).expect("JSON");
    assert_eq!(shown["error"]["message"], "\u{1b}]0;pwn\u{7} \u{202e}\u{9b}2J", "escaped as JSON does it, not changed");
    assert_eq!(server.cli(&["jobs", "logs", &id]).1, "\u{1b}]0;owned\u{7}\n", "bytes for programs are as they were");
}
