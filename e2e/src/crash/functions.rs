//! What is run: a program that sleeps for seconds, so that many run at each kill however slow the machine is; the same for
//! moments, and a warm handler, which begin and end without a pause. All keep the [`witness`], and do what their input says.

use std::time::Duration;

use super::random::Random;
use crate::history::witness;

const MANIFEST: &str = "\
[functions.slow]
exec = [\"./slow.sh\"]
concurrency = 64
timeout = \"1h\"
retry = { attempts = 3, backoff = \"300ms\", max_backoff = \"1s\" }
max_queued = 40

[functions.short]
exec = [\"./slow.sh\"]
concurrency = 6
timeout = \"1h\"
retry = { attempts = 3, backoff = \"300ms\", max_backoff = \"1s\" }
max_queued = 40

[functions.quick]
handler = \"quick.py:quick\"
concurrency = 2
timeout = \"1h\"
retry = { attempts = 3, backoff = \"300ms\", max_backoff = \"1s\" }
max_queued = 100

[functions.brief]
exec = [\"./slow.sh\"]
concurrency = 2
timeout = \"1h\"
keep = { succeeded = \"1s\", failed = \"1s\" }
max_queued = 20

[functions.far]
exec = [\"./slow.sh\"]
concurrency = 2
timeout = \"1h\"
";

const SLOW: &str = "\
#!/bin/sh
. ./witness.sh
read -r note what seconds
started \"$note\"
[ \"$what\" != hold ] || echo $$ >\"../holds.$KVERN_JOB_ID\"
sleep \"$seconds\"
case $what in
  retry) [ $((KVERN_ATTEMPT % 3)) = 0 ] || { ended \"$note\" failed; exit 75; } ;;
  permanent) ended \"$note\" failed; exit 65 ;;
  crash) [ $((KVERN_ATTEMPT % 2)) = 0 ] || kill -9 $$ ;;
esac
ended \"$note\" ok
result
[ \"$what\" != big ] || head -c 100000 /dev/zero
";

const QUICK: &str = "\
import os, time
import witness

class Retry(Exception): pass
class Permanent(Exception): pass

def quick(event, ctx):
    note, what, seconds = event.split(b'\\n')[0].decode().split()
    with witness.run(ctx, note):
        time.sleep(float(seconds))
        if what == 'retry' and ctx.attempt % 3:
            raise Retry('again')
        if what == 'permanent':
            raise Permanent('never')
        if what == 'crash' and ctx.attempt % 2:
            os.kill(os.getpid(), 9)
    return witness.result(ctx) + bytes(100000 if what == 'big' else 0)
";

/// The home of the server.
pub(super) const FILES: [(&str, &str); 5] = [
    ("kvern.toml", MANIFEST),
    ("slow.sh", SLOW),
    ("quick.py", QUICK),
    ("witness.py", witness::PYTHON),
    ("witness.sh", witness::SHELL),
];

/// Functions whose jobs all end by themselves soon.
pub(super) const SOON: [&str; 4] = ["slow", "short", "quick", BRIEF];

/// The function whose jobs are soon forgotten, and after how long.
pub(super) const BRIEF: &str = "brief";
pub(super) const BRIEF_KEEP: Duration = Duration::from_secs(1);

/// A job as a client sends it.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) function: &'static str,
    pub(super) note: u64,
    pub(super) key: Option<String>,
    pub(super) options: String,
    /// More than 64 KiB go another way than less: through a file.
    pub(super) large: bool,
    pub(super) what: &'static str,
    pub(super) millis: u64,
}

// === impl Plan ===

impl Plan {
    /// A job of any kind.
    pub(super) fn draw(note: u64, random: &mut Random) -> Self {
        const WHAT: [&str; 12] =
            ["ok", "ok", "ok", "ok", "ok", "big", "retry", "retry", "retry", "permanent", "permanent", "crash"];
        let function = match random.below(20) {
            0 => "far",
            1 => BRIEF,
            2..=7 => "quick",
            8..=12 => "short",
            _ => "slow",
        };
        let delay = match (function, random.once_in(6)) {
            ("far", _) => "&delay=1h".to_owned(),
            (_, true) => format!("&delay={}ms", 1 + random.below(2000)),
            _ => String::new(),
        };
        Self {
            function,
            note,
            key: random.once_in(2).then(|| format!("key-{note}")),
            options: format!("{delay}&priority={}", random.below(10)),
            large: random.once_in(12),
            what: random.one_of(&WHAT).expect("some"),
            millis: match function {
                "slow" => 3000 + random.below(4000),
                "short" => 50 + random.below(500),
                _ => random.below(30),
            },
        }
    }

    /// A job that does this.
    pub(super) fn of(note: u64, function: &'static str, what: &'static str, millis: u64) -> Self {
        Self { function, note, key: None, options: String::new(), large: false, what, millis }
    }

    pub(super) fn body(&self) -> Vec<u8> {
        let mut body =
            format!("{} {} {}.{:03}\n", self.note, self.what, self.millis / 1000, self.millis % 1000).into_bytes();
        if self.large {
            body.resize(70_000 + usize::try_from(self.note % 9).expect("a digit") * 20_000, b'x');
        }
        body
    }
}
