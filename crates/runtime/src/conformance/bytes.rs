//! Rules about what goes in and comes out.

use std::sync::Arc;

use ::bytes::Bytes;
use kvern_core::{FailureCode, Outcome};

use super::stage::{Collected, Stage, context, until};
use super::{Behaviour, Shown, Subject};
use crate::contract::Input;

/// Sizes around every limit on the way: of frames, of pipes, of inline bytes.
const SIZES: [usize; 8] = [0, 1, 65_535, 65_536, 65_537, 200_000, 1 << 20, 3_000_017];

/// Rule 1.
pub(super) async fn input_reaches_the_function_byte_for_byte(subject: Arc<dyn Subject>) -> Shown {
    let stage = Stage::of(subject.as_ref(), Behaviour::Echo).await?;
    let mut instance = stage.start().await;
    let folder = std::env::temp_dir().join(format!("kvern-conformance-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    for size in SIZES {
        let bytes = Bytes::from(sample(size));
        let path = folder.join(format!("{}-{size}", subject.name().replace(' ', "-")));
        std::fs::write(&path, &bytes).expect("a file");
        for input in [Input::Bytes(bytes.clone()), Input::File(path.clone(), size as u64)] {
            let context = context(stage.function(), "application/octet-stream");
            let run = stage.run_with(instance.as_mut(), &context, input.clone(), Collected::default()).await;
            assert_eq!(run.outcome, Outcome::Succeeded, "{size} bytes");
            assert!(run.output.bytes == bytes, "{size} bytes came back as {}", run.output.bytes.len());
            if let Input::File(path, _) = input {
                assert!(std::fs::read(path).expect("the input is still there") == bytes, "the input is only read");
            }
        }
        std::fs::remove_file(path).expect("the file is removed");
    }
    instance.stop(subject.grace()).await;
    Ok(())
}

/// Rule 2.
pub(super) async fn output_comes_back_byte_for_byte(subject: Arc<dyn Subject>) -> Shown {
    let stage = Stage::of(subject.as_ref(), Behaviour::Echo).await?;
    let mut instance = stage.start().await;
    for content_type in ["image/png", "application/octet-stream", "text/plain; charset=latin1", "x/y"] {
        let bytes = Bytes::from(sample(300));
        let context = context(stage.function(), content_type);
        let run = stage.run_with(instance.as_mut(), &context, Input::Bytes(bytes.clone()), Collected::default()).await;
        assert_eq!(run.outcome, Outcome::Succeeded);
        assert_eq!(run.output.bytes, bytes);
        let given = run.output.content_type.unwrap_or_else(|| "application/octet-stream".to_owned());
        assert_eq!(given, subject.echoed_type(content_type));
    }
    instance.stop(subject.grace()).await;
    Ok(())
}

/// Rule 6.
pub(super) async fn output_is_bounded(subject: Arc<dyn Subject>) -> Shown {
    let stage = Stage::of(subject.as_ref(), Behaviour::Large).await?;
    let mut instance = stage.start().await;
    for (size, is_taken) in [(1000, true), (1001, false), (100_000, false), (50_000_000, false)] {
        if !instance.is_usable() {
            instance = stage.start().await;
        }
        let context = context(stage.function(), "text/plain");
        let input = Input::Bytes(Bytes::from(size.to_string()));
        let run = stage.run_with(instance.as_mut(), &context, input, Collected::bounded(1000)).await;
        match &run.outcome {
            Outcome::Succeeded => assert!(is_taken, "{size} bytes are too many"),
            Outcome::Failed(failure) => {
                assert!(!is_taken, "{size} bytes are not too many: {failure}");
                assert_eq!(failure.code, FailureCode::ResultTooLarge);
                assert!(failure.message.contains("1000"), "the limit is named: {failure}");
            }
            other => panic!("{size} bytes: {other:?}"),
        }
        assert!(run.output.writes.iter().all(|len| *len <= 256 << 10), "what is large comes in pieces");
    }
    instance.stop(subject.grace()).await;
    until("everything has ended", || async { subject.left(stage.function()) == 0 }).await;
    Ok(())
}

/// Rule 12.
pub(super) async fn attempts_are_apart(subject: Arc<dyn Subject>) -> Shown {
    let stage = Stage::of(subject.as_ref(), Behaviour::Print).await?;
    let mut instance = stage.start().await;
    for number in 0..50 {
        let text = format!("attempt {number} {}", "é".repeat(number * 100));
        let run = stage.run(instance.as_mut(), &text).await;
        assert_eq!(run.outcome, Outcome::Succeeded);
        assert_eq!(run.output.text(), text, "the output is this attempt's");
        assert_eq!(run.log.text(), text, "the log is this attempt's");
        assert!(instance.is_usable());
    }
    instance.stop(subject.grace()).await;
    Ok(())
}

/// Bytes that no encoding survives and no two blocks of which are equal.
fn sample(len: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(next).collect()
}
