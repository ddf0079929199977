//! The article's example: photographs are posted, thumbnails appear, with Pillow that Kvern itself installed.

use std::path::Path;

use kvern_e2e::files::of_repository;
use kvern_e2e::{Server, Start, needs, until_within};
use serde_json::Value;

const SIDES: [u32; 3] = [64, 256, 640];
/// For PyPI over a slow line.
const INSTALL_DEADLINE: std::time::Duration = std::time::Duration::from_secs(180);

/// Width and height of a JPEG: from its frame header (ITU T.81, B.2.2); of a PNG: from IHDR.
fn size_of(image: &[u8]) -> (u32, u32) {
    let number = |at: usize, bytes: usize| image[at..at + bytes].iter().fold(0, |n, byte| n << 8 | u32::from(*byte));
    if image.starts_with(b"\x89PNG") {
        return (number(16, 4), number(20, 4));
    }
    assert!(image.starts_with(b"\xff\xd8"), "neither JPEG nor PNG");
    let mut at = 2;
    while !matches!(image[at + 1], 0xc0..=0xc3) {
        at += 2 + number(at + 2, 2) as usize;
    }
    (number(at + 7, 2), number(at + 5, 2))
}

/// The server once Pillow is installed; none without an index to install it from.
fn server() -> Option<Server> {
    if !needs::programs(&["python3"]) {
        return None;
    }
    let example = of_repository("examples/image-upload");
    let server = Server::start_as(Start { copy_of: Some(&example), ..Start::default() });
    let function = until_within(INSTALL_DEADLINE, "Pillow to be installed", || {
        let function = server.http.get("/v1/functions/process-image-upload").json();
        (function["version"].is_string() || function["error"].is_string()).then_some(function)
    });
    let error = function["error"].as_str().unwrap_or_default();
    needs::is_given(&format!("a package index that can be reached ({error})"), error.is_empty()).then_some(server)
}

#[test]
fn a_posted_photograph_becomes_three_thumbnails() {
    let Some(server) = server() else { return };
    let readme = std::fs::read_to_string(server.home.join("README.md")).expect("the example's README");
    for photo in ["chelsea.png", "rocket.jpg", "china.jpg"] {
        let kind = if photo.ends_with("png") { "image/png" } else { "image/jpeg" };
        let bytes = std::fs::read(server.home.join("photos").join(photo)).expect("a photograph");
        let accepted = server.http.ask("POST", "/submit-job", &[("content-type", kind)], &bytes);
        assert_eq!(accepted.status, 202, "{}", accepted.text());
        let id = accepted.json()["id"].as_str().expect("an id").to_owned();
        let job = server.http.finished(&id);
        assert_eq!(job["state"], "succeeded", "{job}");
        assert_eq!(job["input_bytes"], bytes.len());
        let result = server.http.get(&format!("/v1/jobs/{id}/result"));
        if photo == "chelsea.png" {
            let shown = readme.lines().find(|line| line.starts_with("{\"thumbnails\"")).expect("the README shows it");
            let shown = shown.trim_end_matches('…').replace("019…", &id);
            assert!(result.text().starts_with(&shown), "{} is not {shown}", result.text());
        }
        let result = result.json();
        let thumbnails = result["thumbnails"].as_array().expect("thumbnails");
        assert_eq!(thumbnails.len(), SIDES.len());
        for (thumbnail, side) in thumbnails.iter().zip(SIDES) {
            is_right(thumbnail, side, size_of(&bytes), &server.home);
        }
    }
    // What is no photograph fails at once and for good, and is no harm to the others.
    let accepted = server.http.ask("POST", "/submit-job", &[("content-type", "image/png")], b"not a photograph");
    let job = server.http.finished(accepted.json()["id"].as_str().expect("an id"));
    assert_eq!(
        (&job["state"], &job["error"]["code"], &job["failures"]),
        (&"failed".into(), &"permanent".into(), &1.into())
    );
}

fn is_right(thumbnail: &Value, side: u32, (width, height): (u32, u32), home: &Path) {
    let file = std::fs::read(home.join(thumbnail["path"].as_str().expect("a path"))).expect("the file exists");
    assert_eq!(thumbnail["bytes"], file.len());
    let (w, h) = size_of(&file);
    assert_eq!((&thumbnail["width"], &thumbnail["height"]), (&w.into(), &h.into()));
    // Never larger than the photograph, and of its shape.
    assert_eq!(w.max(h), side.min(width.max(height)), "{thumbnail}");
    let (shape, expected) = (f64::from(w) / f64::from(h), f64::from(width) / f64::from(height));
    assert!((shape - expected).abs() / expected < 0.03, "{shape} is not {expected}");
}
