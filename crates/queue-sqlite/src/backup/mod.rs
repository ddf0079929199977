//! Backups: a copy of a data directory as it was at one moment, made while its server works.
//!
//! A backup has the layout of a data directory, the database and the files of large payloads, and a [`label`] that is
//! written last: without it, a backup is not finished. How it is exact although the server goes on:
//!
//! 1. It takes a [`crate::hold`] on the files: from now on none goes that a row named.
//! 2. It begins a read of the database. What that read sees is the backup: every job that was acknowledged before, for it
//!    was committed before. The server goes on writing; what it writes goes to its log, which this read does not see.
//! 3. It copies the database by that one read, page by page.
//! 4. It copies the files that the copy names. Each was whole and on disk before its row was committed, is never written
//!    again, and is still there because of (1). So a file that is missing was lost, and its job is named.
//! 5. It syncs everything, and only then writes the label.
//!
//! Read [`create`] first.

pub(crate) mod copy;
pub(crate) mod create;
pub(crate) mod error;
pub(crate) mod files;
pub(crate) mod label;
pub(crate) mod restore;
pub(crate) mod verify;
