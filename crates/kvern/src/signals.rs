//! The signals that a server hears: TERM and INT stop it, a second one stops it now, USR1 reloads, and so
//! does HUP where it does not mean that the terminal has gone.

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

/// Hears that a reload is asked for.
pub(crate) struct Reload {
    usr1: Signal,
    hup: Option<Signal>,
}

/// From now on neither signal ends us; without `with_hup`, HUP does.
pub(crate) fn reload(with_hup: bool) -> std::io::Result<Reload> {
    let hup = with_hup.then(|| signal(SignalKind::hangup())).transpose()?;
    Ok(Reload { usr1: signal(SignalKind::user_defined1())?, hup })
}

impl Reload {
    /// Waits for the next time.
    pub(crate) async fn wait(&mut self) {
        match &mut self.hup {
            Some(hup) => either(&mut self.usr1, hup).await,
            None => _ = self.usr1.recv().await,
        }
    }
}

async fn either(one: &mut Signal, other: &mut Signal) {
    // Both only say that a signal came: whichever is dropped has lost nothing.
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}
