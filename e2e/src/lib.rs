//! What the end-to-end tests share: a real server process, a plain HTTP client, and waiting for conditions.
//!
//! The tests speak to the binary as a user would: through its command line, its port and its signals. They start what
//! they need on free ports in private directories, and stop it.

pub mod browser;
pub mod crash;
pub mod disk;
pub mod files;
pub mod history;
pub mod http;
pub mod needs;
pub mod nobody;
pub mod processes;
pub mod server;
pub mod wait;
pub mod worker;

pub use browser::Page;
pub use http::{Answer, Http};
pub use nobody::Nobody;
pub use server::{Server, Start, kvern, kvern_under};
pub use wait::{until, until_within};
pub use worker::{Worker, socket_of};
