//! The queue of another process on this machine, over a Unix socket: so that the process which faces the network and the
//! one which runs functions can be two, with one embedded queue.
//!
//! [`Server`] serves any queue on a socket of mode 0600 to processes of the same user or of root; [`SocketQueue`] is the
//! queue as such a process sees it. What this does not do: it knows no adapter, decides nothing, and keeps nothing. Small
//! payloads travel in their frames; of a large input only the path does, for both sides are on one machine; a large result
//! goes to the server in pieces, into the queue's own stage.
//!
//! Read [`words`] first (everything that is said), then [`session`] (one connection, on the server's side) and [`link`]
//! (the same on the worker's side, and how it comes back after a restart).

// What is said, and how.
mod frame;
mod hello;
mod words;

mod outbox;

// The server.
mod answers;
mod hears;
mod runs;
mod server;
mod session;
mod socket;
mod staging;

// The client.
mod claim;
mod connect;
mod grant;
mod link;
mod live;
mod look;
mod queue;
mod stage;

pub use connect::ConnectError;
pub use hears::{Ended, Hears, Unheard};
pub use queue::SocketQueue;
pub use server::{Server, Stop};
pub use socket::{PATH_BYTES_MAX, Socket, SocketError};
