//! The jail of the tests: what the `kvern` binary is for a server. Not installed.

use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("__jail") => kvern_runtime::jail_main(),
        _ => ExitCode::from(2),
    }
}
