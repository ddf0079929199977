//! smoke
use std::sync::{Arc, Mutex};
use std::time::Duration;
use kvern_core::*;
use kvern_runtime::*;
use bytes::Bytes;

struct Out(Vec<u8>, Option<String>);
#[async_trait::async_trait]
impl Output for Out {
    fn head(&mut self, c: &str, _s: Option<u16>) { self.1 = Some(c.into()); }
    async fn write(&mut self, b: Bytes) -> Result<(), OutputRefused> { self.0.extend_from_slice(&b); Ok(()) }
}
struct L(Mutex<Vec<u8>>);
impl Log for L { fn write(&self, b: &[u8]) { self.0.lock().unwrap().extend_from_slice(b) } }
struct P;
impl Progress for P { fn step(&self, l: &str) { eprintln!("{l}"); } }

fn function(home: &std::path::Path, door: Door) -> Function {
    Function { name: "f".parse().unwrap(), door, home: home.into(), route: None, mode: Mode::Async, timeout: Duration::from_secs(5),
      retry: RetryPolicy::default(), concurrency: 1, scale: Scale { min: 0, max: 1, idle: Duration::from_secs(60) }, memory: None, env: vec![],
      max_input: 1<<20, max_output: 1<<20, max_queued: 10, keep: Keep { succeeded: Duration::from_secs(1), failed: Duration::from_secs(1) } }
}

#[tokio::test]
async fn smoke() {
    let data = tempfile::tempdir().unwrap();
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("hello.py"), "import os\nprint('imp')\ndef hello(name='x'):\n    print('hi', os.environ)\n    return 'hello ' + name\n").unwrap();
    let prep = prepare::Settings::new(data.path().into());
    let mut s = process::Settings::new(prep);
    s.jail = env!("CARGO_BIN_EXE_kvern-test-jail").into();
    let rt = ProcessRuntime::new(s).unwrap();
    rt.clean_up_leftovers().await;
    for door in [Door::Handler { language: Language::Python, file: "hello.py".into(), entry: None }, Door::Exec { argv: vec!["sh".into(), "-c".into(), "env >&2; cat".into()] }] {
    let t = std::time::Instant::now();
    let v = rt.prepare(&function(home.path(), door), &P).await.unwrap();
    eprintln!("prepared {:?} {v:?}", t.elapsed());
    let mut i = rt.start(&v).await.unwrap();
    eprintln!("started {:?} {:?}", t.elapsed(), i.pid());
    for n in 0..3 {
    let ctx = Context { job: None, function: "f".parse().unwrap(), attempt: 1, attempts_max: 2, content_type: Some("application/json".into()), deadline: UnixMs(1), timeout: Duration::from_secs(3) };
    let mut out = Out(vec![], None);
    let l = Arc::new(L(Mutex::default()));
    let log: Arc<dyn Log> = l.clone();
    let t = std::time::Instant::now();
    let o = i.run(&ctx, Input::Bytes(Bytes::from(format!("{{\"name\":\"{n}\"}}"))), &mut out, &log).await;
    eprintln!("{:?} {:?} {:?} {:?} log {}", t.elapsed(), o, out.1, String::from_utf8_lossy(&out.0), String::from_utf8_lossy(&l.0.lock().unwrap()));
    assert!(i.is_usable());
    }
    i.stop(Duration::from_secs(1)).await;
    eprintln!("stopped {:?}", t.elapsed());
    }
}
