//! How many attempts a second one instance runs when the function does nothing.
//!
//! ```text
//! cargo run --release -p kvern-runtime --example noop [SECONDS]
//! ```

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use kvern_core::limits::TIMEOUT_DEFAULT;
use kvern_core::{Door, Function, JobId, Keep, Language, Mode, Outcome, RetryPolicy, Scale, Sequence, UnixMs};
use kvern_runtime::{Context, Input, Log, Output, OutputRefused, ProcessRuntime, Progress, Runtime, prepare, process};

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("__jail") {
        return kvern_runtime::jail_main();
    }
    let seconds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(5);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime.map(|runtime| runtime.block_on(measure_all(Duration::from_secs(seconds)))) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => say(&format!("{error}\n"), ExitCode::FAILURE),
        Err(error) => say(&format!("{error}\n"), ExitCode::FAILURE),
    }
}

async fn measure_all(time: Duration) -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::temp_dir().join(format!("kvern-noop-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("home"))?;
    let home = folder.join("home");
    std::fs::write(home.join("noop.py"), "def noop(event):\n    return None\n")?;
    std::fs::write(home.join("anoop.py"), "async def noop(event):\n    return None\n")?;
    std::fs::write(home.join("noop.mjs"), "export default () => null;\n")?;
    std::fs::write(home.join("anoop.mjs"), "export default async () => null;\n")?;
    let runtime = ProcessRuntime::new(process::Settings::new(prepare::Settings::new(folder.join("data"))))?;
    for (name, language, file) in [
        ("python", Language::Python, "noop.py"),
        ("python, async def", Language::Python, "anoop.py"),
        ("node", Language::Node, "noop.mjs"),
        ("node, async", Language::Node, "anoop.mjs"),
    ] {
        let door = Door::Handler { language, file: file.into(), entry: None };
        measure(&runtime, &function(&home, door), name, time).await?;
    }
    let door = Door::Exec { argv: vec!["true".to_owned()] };
    measure(&runtime, &function(&home, door), "exec true", time).await?;
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

async fn measure(
    runtime: &ProcessRuntime,
    function: &Function,
    name: &str,
    time: Duration,
) -> Result<(), Box<dyn std::error::Error>> {
    let version = runtime.prepare(function, &Quiet).await?;
    let began = Instant::now();
    let mut instance = runtime.start(&version).await?;
    let started = began.elapsed();
    let log: Arc<dyn Log> = Arc::new(Quiet);
    let (began, mut attempts) = (Instant::now(), 0u64);
    while began.elapsed() < time {
        let context = context(function, attempts);
        let outcome = instance.run(&context, Input::Bytes(Bytes::from_static(INPUT)), &mut Quiet, &log).await;
        if outcome != Outcome::Succeeded || !instance.is_usable() {
            return Err(format!("{name}: {outcome:?}").into());
        }
        attempts += 1;
    }
    let rate = attempts as f64 / began.elapsed().as_secs_f64();
    instance.stop(Duration::from_secs(1)).await;
    say(&format!("{name:20} {rate:8.0} attempts/s, started in {started:?}\n"), ());
    Ok(())
}

const INPUT: &[u8] = br#"{"url":"https://example.org/photo.jpg","sizes":[64,128,256],"user":"3f2a","note":"no-op"}"#;

fn context(function: &Function, number: u64) -> Context {
    Context {
        job: Some(JobId::new(Sequence::first_of(UnixMs(1_800_000_000_000 + number)), number)),
        function: function.name.clone(),
        attempt: 1,
        attempts_max: 5,
        content_type: Some("application/json".to_owned()),
        deadline: UnixMs(1_800_000_000_000 + number),
        timeout: TIMEOUT_DEFAULT,
    }
}

fn function(home: &Path, door: Door) -> Function {
    Function {
        name: "noop".parse().unwrap_or_else(|_| unreachable!("it is a name")),
        door,
        home: PathBuf::from(home),
        route: None,
        mode: Mode::Async,
        timeout: TIMEOUT_DEFAULT,
        retry: RetryPolicy::default(),
        concurrency: 1,
        scale: Scale { min: 0, max: 1, idle: TIMEOUT_DEFAULT },
        memory: None,
        env: Vec::new(),
        max_input: 1 << 20,
        max_output: 1 << 20,
        max_queued: 1,
        keep: Keep { succeeded: TIMEOUT_DEFAULT, failed: TIMEOUT_DEFAULT, ..Keep::default() },
    }
}

fn say<T>(text: &str, result: T) -> T {
    _ = std::io::stdout().write_all(text.as_bytes());
    result
}

struct Quiet;

#[async_trait]
impl Output for Quiet {
    fn head(&mut self, _content_type: &str, _status: Option<u16>) {}

    async fn write(&mut self, _bytes: Bytes) -> Result<(), OutputRefused> {
        Ok(())
    }
}

impl Log for Quiet {
    fn write(&self, _bytes: &[u8]) {}
}

impl Progress for Quiet {
    fn step(&self, _line: &str) {}
}
