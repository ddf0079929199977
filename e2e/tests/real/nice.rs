//! Functions yield to the server, also where it is not root's.

use kvern_e2e::{Http, Nobody, needs};

/// Each attempt has a session of its own, and ends once that yields as much as it should.
const MANIFEST: &str = "\
[functions.nice]
exec = [\"sh\", \"-c\", \"read -r nice; until grep -q \\\"nice $nice\\\" /proc/self/autogroup; do sleep 0.05; done\"]
concurrency = 6
timeout = \"10s\"
";
const AUTOGROUP: &str = "/proc/self/autogroup";

#[test]
fn functions_that_start_together_are_all_nicer() {
    let Ok(ours) = std::fs::read_to_string(AUTOGROUP) else { return };
    if !needs::root() || !needs::programs(&["setpriv"]) {
        return;
    }
    let ours: i32 = ours.split_whitespace().next_back().and_then(|nice| nice.parse().ok()).unwrap_or(0);
    let input = format!("{}\n", (ours + 5).min(19));
    let server = Nobody::start(&[("kvern.toml", MANIFEST)], &[]);
    let call = |http: Http| {
        let input = input.clone();
        std::thread::spawn(move || http.ask("POST", "/v1/functions/nice", &[], input.as_bytes()))
    };
    let calls: Vec<_> = (0..6).map(|_| call(server.http.clone())).collect();
    for call in calls {
        let answer = call.join().expect("no panic");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}
