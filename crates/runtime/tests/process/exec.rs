//! Processes per attempt.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use kvern_core::{Door, FailureCode, Function, Outcome};
use kvern_runtime::conformance::{Collected, Kept, context};
use kvern_runtime::{Input, Log, Output, OutputRefused};
use tokio::sync::Semaphore;

use crate::support::{Bench, left};
use crate::{call, fails, run};

#[tokio::test]
async fn exit_codes_are_outcomes() {
    let bench = Bench::new();
    for (script, code, message) in [
        (
            "echo 'not a photo' >&2; exit 65",
            FailureCode::BadInput,
            "exited with code 65: the input is bad: not a photo",
        ),
        ("exit 75", FailureCode::Retry, "exited with code 75: try again"),
        ("echo one >&2; echo two >&2; exit 3", FailureCode::Exit, "exited with code 3: two"),
        ("kill -SEGV $$", FailureCode::Crash, "the process was killed by signal 11 (SIGSEGV)"),
    ] {
        assert_eq!(fails(&bench, &bench.shell(script), "", code).await.message, message);
    }
    assert_eq!(call(&bench, &bench.shell("pwd; echo \"$0\" >&2"), "").await.trim(), bench_home(&bench, "pwd").await);
}

async fn bench_home(bench: &Bench, script: &str) -> String {
    // Homes are numbered, so the one before this one ends in the number before.
    let function = bench.shell(script);
    let number: u32 = function.home.file_name().expect("a name").to_string_lossy().parse().expect("a number");
    function.home.with_file_name((number - 1).to_string()).display().to_string()
}

#[tokio::test]
async fn a_process_that_never_reads_its_input_is_no_trouble() {
    let bench = Bench::new();
    let function = bench.shell("echo done\n");
    let stage = bench.stage(&function).await;
    let mut instance = stage.start().await;
    let input = Bytes::from(vec![b'x'; 10 << 20]);
    let path = bench.data.path().join("input");
    std::fs::write(&path, &input).expect("a file");
    for input in [Input::Bytes(input.clone()), Input::File(path, input.len() as u64)] {
        let run =
            stage.run_with(instance.as_mut(), &context(&function, "text/plain"), input, Collected::default()).await;
        assert_eq!((run.outcome, run.output.bytes.as_slice()), (Outcome::Succeeded, &b"done\n"[..]));
        assert!(run.took < Duration::from_secs(60));
    }
}

#[tokio::test]
async fn a_closed_stdout_is_not_the_end() {
    let bench = Bench::new();
    let function = bench.shell("echo early; exec >&-; sleep 0.2; echo late >&2; exit 3");
    let run = run(&bench, &function, "", "").await;
    assert_eq!(run.outcome.failure().map(|failure| failure.code), Some(FailureCode::Exit));
    assert_eq!((run.output.text().as_str(), run.log.text().as_str()), ("early\n", "late\n"));
}

#[tokio::test]
async fn children_that_hold_the_pipes_do_not_hold_the_attempt() {
    let bench = Bench::new();
    let function = bench.shell("sleep 1000 & setsid sleep 1000 & echo done");
    let run = run(&bench, &function, "", "").await;
    assert_eq!((run.outcome, run.output.text().as_str()), (Outcome::Succeeded, "done\n"));
    assert!(run.took < Duration::from_secs(60), "{:?}", run.took);
}

/// An output that says when a write came, and takes one per permit.
struct Gate<'a> {
    came: &'a Semaphore,
    permits: &'a Semaphore,
}

#[async_trait]
impl Output for Gate<'_> {
    fn head(&mut self, _content_type: &str, _status: Option<u16>) {}

    async fn write(&mut self, _bytes: Bytes) -> Result<(), OutputRefused> {
        self.came.add_permits(1);
        self.permits.acquire().await.expect("it is open").forget();
        Ok(())
    }
}

#[tokio::test]
async fn output_streams_as_it_comes_and_a_slow_reader_blocks_no_log() {
    let bench = Bench::new();
    let function = bench.shell("echo first; head -c 3000000 /dev/zero >&2; echo logged >&2; cat /proc/self/stat");
    let stage = bench.stage(&function).await;
    let mut instance = stage.start().await;
    let (came, permits) = (Semaphore::new(0), Semaphore::new(0));
    let mut gate = Gate { came: &came, permits: &permits };
    let kept = std::sync::Arc::new(Kept::default());
    let log: std::sync::Arc<dyn Log> = std::sync::Arc::<Kept>::clone(&kept);
    let context = context(&function, "text/plain");
    let reader = async {
        came.acquire().await.expect("it is open").forget();
        // The first bytes are here, nobody takes them, and the process goes on printing all the same.
        kvern_runtime::conformance::until("the log is read", || async { kept.len() > 3_000_000 }).await;
        permits.add_permits(1000);
    };
    let (outcome, ()) = tokio::join!(instance.run(&context, Input::Bytes(Bytes::new()), &mut gate, &log), reader);
    assert_eq!(outcome, Outcome::Succeeded);
}

#[tokio::test]
async fn a_reader_that_never_reads_is_bounded_by_the_deadline() {
    let bench = Bench::new();
    let function = bench.shell("echo first; sleep 0.1; echo second");
    let stage = bench.stage(&function).await;
    let mut instance = stage.start().await;
    let (came, permits) = (Semaphore::new(0), Semaphore::new(0));
    let mut gate = Gate { came: &came, permits: &permits };
    let log: std::sync::Arc<dyn Log> = std::sync::Arc::new(Kept::default());
    let mut context = context(&function, "text/plain");
    context.timeout = Duration::from_millis(500);
    let outcome = instance.run(&context, Input::Bytes(Bytes::new()), &mut gate, &log).await;
    assert!(matches!(outcome, Outcome::TimedOut(_)), "{outcome:?}");
    assert_eq!(left(&function), 0);
}

#[tokio::test]
async fn an_output_that_is_too_large_stops_the_process() {
    let bench = Bench::new();
    let function = bench.shell("cat /dev/zero");
    let stage = bench.stage(&function).await;
    let mut instance = stage.start().await;
    let run = stage
        .run_with(instance.as_mut(), &context(&function, ""), Input::Bytes(Bytes::new()), Collected::bounded(1 << 20))
        .await;
    assert_eq!(run.outcome.failure().map(|failure| failure.code), Some(FailureCode::ResultTooLarge));
    assert_eq!(left(&function), 0);
}

#[tokio::test]
async fn programs_that_cannot_be_run_are_named() {
    let bench = Bench::new();
    let function = bench.function("a.txt", "#!/no/such/interpreter\n", Door::Exec { argv: vec!["./a.txt".into()] });
    let failure = fails(&bench, &function, "", FailureCode::CannotStart).await;
    assert!(failure.message.starts_with("./a.txt cannot be run: "), "{failure}");
    assert!(failure.message.ends_with(": its first line wants /no/such/interpreter, which is not there"), "{failure}");
    let function = Function { door: Door::Exec { argv: vec!["no-such-program".into()] }, ..function };
    let stage = kvern_runtime::conformance::Stage::prepare(bench.runtime.clone(), &function).await;
    let said = match stage {
        Err(error) => error.to_string(),
        Ok(stage) => stage.try_start().await.err().expect("it cannot start").to_string(),
    };
    assert!(said.contains("no-such-program") && said.contains("PATH"), "{said}");
}
