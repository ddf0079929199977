//! The jail of the tests: what the `kvern` binary is for a server. Not installed.
//!
//! It is a server of the tests too, one that can be killed: `serve DATA HOME MARK` runs `hello.py` in HOME for ever.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use kvern_core::{Door, Language};
use kvern_runtime::conformance::{Collected, Silent, context, function};
use kvern_runtime::{Input, Log, ProcessRuntime, Runtime, prepare, process};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["__jail", ..] => kvern_runtime::jail_main(),
        ["serve", data, home, mark] => {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(serve(data.into(), home.as_ref(), mark));
            ExitCode::SUCCESS
        }
        _ => ExitCode::from(2),
    }
}

async fn serve(data: PathBuf, home: &Path, mark: &str) {
    let runtime =
        ProcessRuntime::new(process::Settings::new(prepare::Settings::new(data))).expect("the data directory");
    let door = Door::Handler { language: Language::Python, file: "hello.py".into(), entry: None };
    let mut function = function("served", home, door);
    function.env.push(("KVERN_TEST_MARK".to_owned(), mark.to_owned()));
    let version = runtime.prepare(&function, &Silent).await.expect("it can be prepared");
    let mut instance = runtime.start(&version).await.expect("it starts");
    let mut context = context(&function, "");
    context.content_type = None;
    let log: Arc<dyn Log> = Arc::new(Shown);
    instance.run(&context, Input::Bytes("".into()), &mut Collected::default(), &log).await;
}

/// Shows the function's log to the test.
struct Shown;

impl Log for Shown {
    fn write(&self, bytes: &[u8]) {
        let mut stdout = std::io::stdout();
        // The test listens for the first line only.
        let _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
    }
}
