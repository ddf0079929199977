//! What a scripted attempt does.

use std::time::Duration;

use bytes::Bytes;
use kvern_core::{Failure, FailureCode, Outcome};
use tokio::io::AsyncReadExt;
use tokio::time::sleep;

use crate::contract::{Context, Input, Log, Output, OutputRefused};

/// One read of an input file that is echoed.
const READ_BYTES: usize = 64 << 10;

/// What one attempt does: it prints `log`, waits, and ends.
#[derive(Debug, Clone)]
pub struct Act {
    log: Bytes,
    after: Duration,
    end: End,
}

#[derive(Debug, Clone)]
enum End {
    Succeed(Bytes, String),
    Echo,
    Fail(Failure),
    Crash(Failure),
    Hang,
}

// === impl Act ===

impl Act {
    /// Succeeds with this result, as `text/plain`.
    #[must_use]
    pub fn succeed(result: impl Into<Bytes>) -> Self {
        Self::new(End::Succeed(result.into(), "text/plain; charset=utf-8".to_owned()))
    }

    /// Succeeds with the input and its content type.
    #[must_use]
    pub fn echo() -> Self {
        Self::new(End::Echo)
    }

    /// Fails.
    #[must_use]
    pub fn fail(code: FailureCode, message: &str) -> Self {
        Self::new(End::Fail(Failure::new(code, message)))
    }

    /// Fails so.
    #[must_use]
    pub fn fail_with(failure: Failure) -> Self {
        Self::new(End::Fail(failure))
    }

    /// The instance dies.
    #[must_use]
    pub fn crash(message: &str) -> Self {
        Self::new(End::Crash(Failure::new(FailureCode::Crash, message)))
    }

    /// Never ends by itself.
    #[must_use]
    pub fn hang() -> Self {
        Self::new(End::Hang)
    }

    /// The same, after a while.
    #[must_use]
    pub fn after(self, after: Duration) -> Self {
        Self { after, ..self }
    }

    /// The same, having printed this first.
    #[must_use]
    pub fn printing(self, log: impl Into<Bytes>) -> Self {
        Self { log: log.into(), ..self }
    }

    fn new(end: End) -> Self {
        Self { log: Bytes::new(), after: Duration::ZERO, end }
    }

    /// Prints what it has to say.
    pub(super) fn print(&self, log: &dyn Log) {
        if !self.log.is_empty() {
            log.write(&self.log);
        }
    }

    /// Waits, and ends.
    pub(super) async fn perform(&self, context: &Context, input: Input, output: &mut dyn Output) -> Outcome {
        if !self.after.is_zero() {
            sleep(self.after).await;
        }
        let written = match &self.end {
            End::Succeed(result, content_type) => {
                output.head(content_type, None);
                output.write(result.clone()).await
            }
            End::Echo => {
                if let Some(content_type) = &context.content_type {
                    output.head(content_type, None);
                }
                echo(input, output).await
            }
            End::Fail(failure) => return Outcome::Failed(failure.clone()),
            End::Crash(failure) => return Outcome::Crashed(failure.clone()),
            End::Hang => std::future::pending().await,
        };
        written.map_or_else(|refused| refused.outcome(), |()| Outcome::Succeeded)
    }
}

// === helpers ===

async fn echo(input: Input, output: &mut dyn Output) -> Result<(), OutputRefused> {
    let failed = |error: std::io::Error| OutputRefused::Failed(error.to_string());
    let path = match input {
        Input::Bytes(bytes) => return output.write(bytes).await,
        Input::File(path, _) => path,
    };
    let mut file = tokio::fs::File::open(path).await.map_err(failed)?;
    let mut buffer = Vec::with_capacity(READ_BYTES);
    while file.read_buf(&mut buffer).await.map_err(failed)? > 0 {
        output.write(Bytes::copy_from_slice(&buffer)).await?;
        buffer.clear();
    }
    Ok(())
}
