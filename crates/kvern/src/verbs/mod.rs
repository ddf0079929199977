//! One verb per file.

pub(crate) mod backup;
pub(crate) mod check;
pub(crate) mod dev;
pub(crate) mod doctor;
pub(crate) mod functions;
pub(crate) mod healthcheck;
pub(crate) mod invoke;
pub(crate) mod jobs;
pub(crate) mod logs;
pub(crate) mod new;
pub(crate) mod reload;
pub(crate) mod restore;
pub(crate) mod serve;
pub(crate) mod token;
