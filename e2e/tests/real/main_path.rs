//! The main path: a request becomes a durable job, a function runs it, the caller gets the result.

mod bytes;
mod flaky;
mod hello;
mod image_upload;
mod lists;
mod names;
mod options;
mod stalled;
mod told;
