//! Everything that is tested of the socket from the outside. The server runs in a runtime of its own, as in a process of
//! its own, and is killed with it.

mod contract;
mod restarts;
mod server;
mod sqlite;
mod strangers;
mod subject;
