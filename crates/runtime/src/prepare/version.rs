//! The name of a version: a hash of all that changes what runs in an instance.
//!
//! In it: the files of the copy with their paths and executable bits; the door; `env` and `memory`, which an instance
//! gets when it starts; and the installed requirements, which are named after their lock file and interpreter.
//!
//! Not in it, on purpose: `timeout`, `retry`, `concurrency`, `scale`, `route`, `mode`, `keep` and the limits on input,
//! output and queue. Kvern applies these around an attempt, so changing them needs no new instance. Nor the absolute
//! path of anything, so that two hosts with the same files have the same version.

use std::path::PathBuf;

use kvern_core::{Door, Function};
use sha2::{Digest, Sha256};

use crate::contract::Version;

/// A SHA-256.
pub(super) type Hash = [u8; 32];

/// One file as hashed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Content {
    /// Its path in the copy, or as the manifest writes it.
    pub(super) path: PathBuf,
    /// Whether it may be executed.
    pub(super) is_executable: bool,
    /// Of its bytes.
    pub(super) hash: Hash,
}

/// A hash over fields: each is preceded by its length, so that no two lists of fields look alike.
pub(super) struct Fields(Sha256);

/// The version of a function with these files and these installed requirements.
pub(super) fn version(function: &Function, contents: &[Content], packages: Option<&str>) -> Version {
    let mut fields = Fields::new("kvern version 1");
    put_door(&mut fields, &function.door);
    let mut env: Vec<_> = function.env.iter().collect();
    env.sort();
    fields.put_count(env.len());
    for (name, value) in env {
        fields.put(name.as_bytes());
        fields.put(value.as_bytes());
    }
    fields.put(&function.memory.map_or(0, |memory| memory.0.get()).to_be_bytes());
    fields.put(packages.unwrap_or_default().as_bytes());
    fields.put_contents(contents);
    Version(fields.short().into())
}

fn put_door(fields: &mut Fields, door: &Door) {
    match door {
        Door::Handler { language, file, entry } => {
            fields.put(language.as_str().as_bytes());
            fields.put(file.file_name().unwrap_or_default().as_encoded_bytes());
            fields.put(entry.as_deref().unwrap_or_default().as_bytes());
        }
        Door::Exec { argv } => {
            fields.put(b"exec");
            fields.put_count(argv.len());
            for argument in argv {
                fields.put(argument.as_bytes());
            }
        }
    }
}

// === impl Fields ===

impl Fields {
    pub(super) fn new(purpose: &str) -> Self {
        let mut fields = Self(Sha256::new());
        fields.put(purpose.as_bytes());
        fields
    }

    pub(super) fn put(&mut self, field: &[u8]) {
        self.put_count(field.len());
        self.0.update(field);
    }

    pub(super) fn put_count(&mut self, count: usize) {
        self.0.update((count as u64).to_be_bytes());
    }

    pub(super) fn put_contents(&mut self, contents: &[Content]) {
        self.put_count(contents.len());
        for content in contents {
            self.put(content.path.as_os_str().as_encoded_bytes());
            self.put(&[u8::from(content.is_executable)]);
            self.put(&content.hash);
        }
    }

    /// The first 12 hexadecimal digits: 48 bits, far from a collision among the versions of one function.
    pub(super) fn short(self) -> String {
        self.0.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
    }
}
