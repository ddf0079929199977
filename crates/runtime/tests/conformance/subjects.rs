//! The subjects: Python, Node.js and exec on the process runtime, and the fake.

use std::fs::{self, File};
use std::sync::Arc;
use std::time::Duration;

use kvern_core::{Door, Function, Language};
use kvern_runtime::conformance::{self, Behaviour, Subject};
use kvern_runtime::fake::{Act, Fake};
use kvern_runtime::{Input, Runtime};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::{Bench, GRACE, handler, left, write};

/// Every subject.
pub(crate) fn all() -> Vec<Arc<dyn Subject>> {
    vec![
        Arc::new(Handlers { language: Language::Python, bench: Bench::new() }),
        Arc::new(Handlers { language: Language::Node, bench: Bench::new() }),
        Arc::new(Exec { bench: Bench::new() }),
        Arc::new(Fakes(Fake::new())),
    ]
}

/// Handlers of one language.
struct Handlers {
    language: Language,
    bench: Bench,
}

/// A shell script.
struct Exec {
    bench: Bench,
}

/// Scripts.
struct Fakes(Fake);

/// This process may open few files; it may open as many as before once this is dropped.
struct FewDescriptors {
    before: Rlimit,
    _filler: Vec<File>,
}

// === impl Handlers ===

impl Handlers {
    fn texts(&self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self.language {
            Language::Python => (
                "behaviours.py",
                include_str!("python_behaviours.py"),
                "def says(event):\n    return 'NUMBER'\n",
                "def says(event):\n    because because\n",
            ),
            Language::Node => (
                "behaviours.mjs",
                include_str!("node_behaviours.mjs"),
                "export function says() {\n  return 'NUMBER';\n}\n",
                "export function says() {\n  because because;\n}\n",
            ),
        }
    }
}

impl Subject for Handlers {
    fn name(&self) -> &'static str {
        self.language.as_str()
    }

    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::clone(&self.bench.runtime) as Arc<dyn Runtime>
    }

    fn function(&self, behaviour: Behaviour) -> Result<Function, &'static str> {
        let (file, behaviours, says, broken) = self.texts();
        let door = |entry| handler(self.language, file, Some(entry));
        let says = says.replace("NUMBER", "one");
        Ok(match behaviour {
            Behaviour::SaysOne => self.bench.function(file, &says, door("says")),
            Behaviour::CannotStart => self.bench.function(file, broken, door("says")),
            _ => self.bench.function(file, behaviours, door(word(behaviour))),
        })
    }

    fn say_two(&self, function: &Function) {
        let (file, _, says, _) = self.texts();
        write(&function.home.join(file), &says.replace("NUMBER", "two"));
    }

    fn leave_room(&self, _function: &Function, pieces: u32) -> Result<Box<dyn Send>, &'static str> {
        Ok(Box::new(FewDescriptors::leave(pieces)))
    }

    fn left(&self, function: &Function) -> usize {
        left(function)
    }

    fn grace(&self) -> Duration {
        GRACE
    }
}

// === impl Exec ===

impl Subject for Exec {
    fn name(&self) -> &'static str {
        "exec"
    }

    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::clone(&self.bench.runtime) as Arc<dyn Runtime>
    }

    fn function(&self, behaviour: Behaviour) -> Result<Function, &'static str> {
        let script = |argument: &str| Door::Exec { argv: vec!["./behave.sh".to_owned(), argument.to_owned()] };
        let function = self.bench.function("behave.sh", include_str!("exec_behaviours.sh"), script(word(behaviour)));
        Ok(match behaviour {
            Behaviour::Environment => Function { door: Door::Exec { argv: vec!["env".to_owned()] }, ..function },
            Behaviour::SaysOne => self.bench.shell("echo one\n"),
            Behaviour::CannotStart => {
                // Outside of its home: such a program is run where it is, and can go missing.
                let elsewhere = self.bench.function("because.sh", "#!/bin/sh\n", script("")).home.join("because.sh");
                Function { door: Door::Exec { argv: vec![elsewhere.display().to_string()] }, ..function }
            }
            _ => function,
        })
    }

    fn echoed_type(&self, _sent: &str) -> String {
        "application/octet-stream".to_owned()
    }

    fn say_two(&self, function: &Function) {
        write(&function.home.join("hello.sh"), "#!/bin/sh\necho two\n");
    }

    fn spoil(&self, function: &Function) {
        fs::remove_file(function.door.describe()).expect("the program was there");
    }

    fn leave_room(&self, _function: &Function, pieces: u32) -> Result<Box<dyn Send>, &'static str> {
        Ok(Box::new(FewDescriptors::leave(pieces)))
    }

    fn left(&self, function: &Function) -> usize {
        left(function)
    }

    fn grace(&self) -> Duration {
        GRACE
    }
}

// === impl Fakes ===

impl Subject for Fakes {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(self.0.clone())
    }

    fn function(&self, behaviour: Behaviour) -> Result<Function, &'static str> {
        let name = word(behaviour);
        match behaviour {
            Behaviour::Echo => {}
            Behaviour::Print => self.0.on(name, |_, input| Act::echo().printing(text(input))),
            Behaviour::Hang => self.0.always(name, Act::hang().printing("waiting\n")),
            Behaviour::Die => self.0.always(name, Act::crash("killed by signal 9 (SIGKILL)").printing("dying")),
            Behaviour::Large => self.0.on(name, |_, input| Act::succeed(sized(input))),
            Behaviour::Flood => self.0.on(name, |_, input| Act::succeed("done").printing(sized(input))),
            Behaviour::CannotStart => self.0.refuse_starts(name, 1, "because"),
            Behaviour::Stubborn | Behaviour::Family | Behaviour::Parent => return Err("there are no processes"),
            Behaviour::Environment => return Err("there is no environment"),
            Behaviour::SaysOne => return Err("a script is of no version"),
        }
        let door = Door::Exec { argv: vec!["fake".to_owned()] };
        Ok(conformance::function(name, "/".as_ref(), door))
    }

    fn say_two(&self, _function: &Function) {}

    fn leave_room(&self, function: &Function, pieces: u32) -> Result<Box<dyn Send>, &'static str> {
        self.0.leave_no_room(function.name.as_str(), u32::from(pieces == 0));
        Ok(Box::new(()))
    }

    fn left(&self, function: &Function) -> usize {
        self.0.counts(function.name.as_str()).running as usize
    }

    fn grace(&self) -> Duration {
        GRACE
    }
}

// === impl FewDescriptors ===

impl FewDescriptors {
    /// Leaves so many. Other numbers are filled first: the children have the same limit, and need some of their own.
    fn leave(descriptors: u32) -> Self {
        let filler: Vec<_> = (0..200).map(|_| File::open("/dev/null").expect("there is room")).collect();
        let before = getrlimit(Resource::Nofile);
        let open = fs::read_dir("/proc/self/fd").expect("our descriptors").flatten();
        let mut open: Vec<u64> = open.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        // The one that the folder was read with is free again.
        open.retain(|number| fs::read_link(format!("/proc/self/fd/{number}")).is_ok());
        let free = (0..).filter(|number| !open.contains(number));
        let limit = free.take(descriptors as usize + 1).last();
        setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: before.maximum }).expect("a lower limit");
        Self { before, _filler: filler }
    }
}

impl Drop for FewDescriptors {
    fn drop(&mut self) {
        let before = Rlimit { current: self.before.current, maximum: self.before.maximum };
        setrlimit(Resource::Nofile, before).expect("the limit as it was");
    }
}

// === helpers ===

fn word(behaviour: Behaviour) -> &'static str {
    match behaviour {
        Behaviour::Echo => "echo",
        Behaviour::Print => "show",
        Behaviour::Hang => "hang",
        Behaviour::Stubborn => "stubborn",
        Behaviour::Family => "family",
        Behaviour::Parent => "parent",
        Behaviour::Die => "die",
        Behaviour::Large => "large",
        Behaviour::Flood => "flood",
        Behaviour::Environment => "environment",
        Behaviour::SaysOne | Behaviour::CannotStart => "says",
    }
}

fn text(input: &Input) -> String {
    match input {
        Input::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Input::File(path, _) => fs::read_to_string(path).expect("the input"),
    }
}

fn sized(input: &Input) -> Vec<u8> {
    vec![b'x'; text(input).parse().expect("a number")]
}
