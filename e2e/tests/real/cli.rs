//! The command line as scripts use it: JSON on stdout and nothing else there, and exit codes that hold.

mod completions;
mod exit_codes;
mod json;
mod plain;
mod reference;
