//! Fills the write-ahead log, so that it is copied into the database and begun anew.

use kvern_e2e::{Answer, Http};

/// Stored in its row, and large enough that few of them fill the log.
static INPUT: [u8; 60_000] = [b'x'; 60_000];
/// More than fill the log and then some.
const SUBMITS_MAX: usize = 400;

/// Submits jobs that are no part of a load, until `is_enough` says so of an answer. A server that is gone gives none.
pub(crate) fn fill_log(http: &Http, mut is_enough: impl FnMut(Option<Answer>) -> bool) {
    let fills = (0..SUBMITS_MAX).any(|_| is_enough(http.try_ask("POST", "/v1/functions/fill/jobs", &[], &INPUT).ok()));
    assert!(fills, "{SUBMITS_MAX} submits were not enough");
}
