//! What watchers hear of each job, on both sides.
//!
//! A move is told after the record shows it, so perhaps a moment after the answer, and not in the order of the answers.
//! That a job waits is told once or more, and only after a sweep for sure: when exactly a due job begins to be shown as
//! queued is left open.

use std::collections::BTreeMap;
use std::time::Duration;

use kvern_core::{JobId, State};
use tokio::time::{Instant, timeout};

use super::view::{Difference, Names, same};
use super::world::Side;
use crate::conformance::setup::SOON;
use crate::events::{Event, Watch, Watcher};

/// The watchers of one life of the queues.
pub(super) struct News {
    all: [Watcher; 2],
    heard: [Heard; 2],
    /// Watchers of the same job.
    jobs: Vec<[Watcher; 2]>,
}

/// How often a job was heard to be in a state.
type Heard = BTreeMap<(JobId, State), u32>;

// === impl News ===

impl News {
    /// Hears everything from now on.
    pub(super) fn new(model: &Side, other: &Side) -> Self {
        let all = [model, other].map(|side| side.queue.watch(Watch::All));
        Self { all, heard: Default::default(), jobs: Vec::new() }
    }

    /// Listens to one job too.
    pub(super) fn watch(&mut self, model: (&Side, JobId), other: (&Side, JobId)) {
        self.jobs.push([model, other].map(|(side, id)| side.queue.watch(Watch::Job(id))));
    }

    /// Both have told the same, soon. `is_swept` says whether that includes what waits.
    pub(super) async fn check(&mut self, model: &Side, other: &Side, is_swept: bool) -> Result<(), Difference> {
        let deadline = Instant::now() + SOON;
        let heard = loop {
            for ((watcher, heard), side) in self.all.iter_mut().zip(&mut self.heard).zip([model, other]) {
                listen(watcher, heard, &side.names).await;
                heard.retain(|(_, state), _| is_swept || *state != State::Queued);
            }
            if self.heard[0] == self.heard[1] || Instant::now() >= deadline {
                break &self.heard;
            }
            // The next word of the subject, or the end.
            if let Ok(Some(event)) = tokio::time::timeout_at(deadline, self.all[1].next()).await {
                note(&mut self.heard[1], &event, &other.names);
            }
        };
        same("the moves heard", &heard[0], &heard[1])?;
        for [model, other] in self.jobs.iter_mut().filter(|_| is_swept) {
            if is_told(model, Duration::ZERO).await {
                same("whether the watcher of a job heard of a move", &true, &is_told(other, SOON).await)?;
            }
        }
        Ok(())
    }
}

/// Takes in what was told so far.
async fn listen(watcher: &mut Watcher, heard: &mut Heard, names: &Names) {
    while let Ok(Some(event)) = timeout(Duration::ZERO, watcher.next()).await {
        note(heard, &event, names);
    }
}

fn note(heard: &mut Heard, event: &Event, names: &Names) {
    let Event::Moved { id, state, .. } = event else { panic!("{event:?} among so few moves") };
    let id = names.common(*id);
    match state {
        State::Scheduled | State::Queued => _ = heard.insert((id, State::Queued), 1),
        state => *heard.entry((id, *state)).or_default() += 1,
    }
}

async fn is_told(watcher: &mut Watcher, within: Duration) -> bool {
    timeout(within, watcher.next()).await.is_ok()
}
