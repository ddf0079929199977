//! The real ring: the binary as a user runs it, killed, restarted and misused.

mod bad_input;
mod cli;
mod console;
mod dev;
mod disk;
mod known_bad;
mod main_path;
mod nice;
mod running_dev;
mod secrets;
mod sovereignty;
mod survival;
mod two_processes;
