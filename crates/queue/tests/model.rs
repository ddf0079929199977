//! The specification compared with itself: finds mistakes in the comparison.

use kvern_queue::conformance::MemorySubject;
use kvern_queue::model;

#[test]
fn the_model_is_the_model() {
    model::compare(MemorySubject::default(), 400);
}
