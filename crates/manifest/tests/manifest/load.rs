//! Reading the file.

use std::error::Error as _;
use std::fs;
use std::path::Path;

use kvern_manifest::{LoadError, MANIFEST_BYTES_MAX, load};

use crate::FOUR_CORES;

fn load_bytes(bytes: &[u8]) -> (tempfile::TempDir, Result<kvern_manifest::Manifest, LoadError>) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("kvern.toml");
    fs::write(&path, bytes).expect("a file");
    let loaded = load(&path, &FOUR_CORES);
    (folder, loaded)
}

#[test]
fn home_is_the_folder_of_the_file() {
    let (folder, loaded) = load_bytes(b"[functions.a]\nexec = [\"a\"]\n");
    let manifest = loaded.expect("good");
    assert_eq!(manifest.home, folder.path());
    assert_eq!(manifest.functions[0].home, folder.path());
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = load(Path::new("/nowhere/kvern.toml"), &FOUR_CORES).expect_err("not there");
    assert_eq!(error.to_string(), "cannot read /nowhere/kvern.toml");
    assert!(matches!(error, LoadError::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound));
}

#[test]
fn what_is_no_manifest_is_refused_with_the_reason() {
    for (bytes, reason) in [
        (vec![b'#'; MANIFEST_BYTES_MAX + 1], "it is longer than 1048576 bytes"),
        (b"# x\na = \"\xff\"".to_vec(), "line 2 is not UTF-8, from its byte 6 on"),
    ] {
        let (_folder, loaded) = load_bytes(&bytes);
        assert_eq!(loaded.expect_err("refused").source().expect("a reason").to_string(), reason);
    }
}

#[test]
fn mistakes_are_the_error() {
    let (_folder, loaded) = load_bytes(b"x = 1\n");
    let error = loaded.expect_err("a mistake");
    assert!(error.to_string().starts_with("error: unknown key `x`\n"), "{error}");
}
