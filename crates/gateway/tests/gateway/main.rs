//! The gateway behind a real socket, with the queue in memory and functions that the test itself plays.

mod client;
mod fakes;
mod server;

mod access;
mod act;
mod bodies;
mod calls;
mod docs;
mod drain;
mod framing;
mod idempotency;
mod list;
mod logs;
mod lookup;
mod probes;
mod refusals;
mod routes;
mod slow;
mod submit;
