//! The signals that a server hears: TERM and INT stop it, a second one stops it now, HUP reloads.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::exit::Outcome;
use crate::print;

/// The exit code after a second TERM or INT, as a shell would give it for INT.
const STOPPED_NOW: i32 = 130;

/// Cancels `shutdown` at the first TERM or INT; ends the process at the second.
pub(crate) fn stop_on_signal(shutdown: CancellationToken) -> Outcome {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    // A limit on the size of files (`ulimit -f`) shall be an error of a write and not the end of the server. A handler
    // and not "ignored", which functions would inherit.
    let _ = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?;
    tokio::spawn(async move {
        either(&mut term, &mut int).await;
        shutdown.cancel();
        print::say("stopping: running jobs may finish; once more to stop now");
        either(&mut term, &mut int).await;
        // Functions die with us: their jails hold our end of a socket.
        std::process::exit(STOPPED_NOW);
    });
    Ok(())
}

/// Hears HUP.
pub(crate) fn hup() -> std::io::Result<Signal> {
    signal(SignalKind::hangup())
}

async fn either(term: &mut Signal, int: &mut Signal) {
    // Both only say that a signal came: whichever is dropped has lost nothing.
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
