//! The stages of one connection: large payloads on their way in, and those that are whole and wait for the job or the
//! settlement that names them. All of them go with the connection, but for what the queue has kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use kvern_queue::{Error, Payload, Queue, Stage};
use tokio::sync::Mutex as AsyncMutex;

use crate::words::{Number, WireBlob};

/// Most stages of one connection. More than any worker has slots for results.
const STAGES_MAX: usize = 65_536;

/// The stages of one connection, by the numbers that the client gave them.
#[derive(Debug, Default)]
pub(crate) struct Stages(Mutex<HashMap<Number, Place>>);

/// One stage. Whoever works on it holds it, so that one which is dropped meanwhile goes once the work is done.
pub(crate) type Place = Arc<AsyncMutex<Staging>>;

/// What a stage is by now.
#[derive(Default)]
pub(crate) enum Staging {
    #[default]
    New,
    Open(Box<dyn Stage>),
    Whole(Payload),
    /// It failed, or was never whole.
    Lost,
}

// === impl Stages ===

impl Stages {
    /// The stage of this number, made if it is new.
    ///
    /// # Errors
    /// [`Error::Busy`] if there are too many.
    pub(crate) fn place(&self, number: Number) -> Result<Place, Error> {
        let mut stages = self.lock();
        if stages.len() >= STAGES_MAX && !stages.contains_key(&number) {
            return Err(Error::Busy(format!("{STAGES_MAX} results are being handed over")));
        }
        Ok(Arc::clone(stages.entry(number).or_default()))
    }

    /// What the stage of this number became. It stays here, for the same settlement may come again.
    ///
    /// # Errors
    /// [`Error::Broken`] if there is no such payload.
    pub(crate) async fn whole(&self, number: Number) -> Result<Payload, Error> {
        let place = self.lock().get(&number).map(Arc::clone);
        let lost = || Error::Broken("the payload is not here any more".to_owned());
        match &*place.ok_or_else(lost)?.lock().await {
            Staging::Whole(payload) => Ok(payload.clone()),
            _ => Err(lost()),
        }
    }

    /// Nobody needs the stage of this number.
    pub(crate) fn drop(&self, number: Number) {
        let gone = self.lock().remove(&number);
        // Outside the lock: a file may go with it.
        drop(gone);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Number, Place>> {
        // A map is whole at any time.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Staging ===

impl Staging {
    /// The next bytes.
    pub(crate) async fn write(&mut self, queue: &dyn Queue, bytes: Bytes) -> Result<(), Error> {
        if let Self::New = self {
            *self = Self::Open(queue.stage().await?);
        }
        let Self::Open(stage) = self else { return Err(Error::Broken("this payload takes no more bytes".to_owned())) };
        stage.write(bytes).await
    }

    /// Makes it whole, and gives its file, if it has one.
    pub(crate) async fn finish(&mut self) -> Result<Option<WireBlob>, Error> {
        let Self::Open(stage) = std::mem::replace(self, Self::Lost) else {
            return Err(Error::Broken("this payload was never begun".to_owned()));
        };
        let payload = stage.finish().await?;
        let file = match &payload {
            Payload::Inline(_) => None,
            Payload::Blob(blob) => Some(WireBlob::of(blob)),
        };
        *self = Self::Whole(payload);
        Ok(file)
    }
}

impl std::fmt::Debug for Staging {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::New => "New",
            Self::Open(_) => "Open",
            Self::Whole(_) => "Whole",
            Self::Lost => "Lost",
        })
    }
}
