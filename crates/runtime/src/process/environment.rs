//! The environment of a function: only what is declared.

use std::ffi::OsString;
use std::path::Path;

use kvern_core::Function;

use super::settings::Settings;
use crate::contract::Context;

/// The variables of every process of a function; its own `env` comes last and wins.
pub(super) fn of_function(settings: &Settings, function: &Function, scratch: &Path) -> Vec<(OsString, OsString)> {
    let mut variables: Vec<(OsString, OsString)> = vec![
        ("PATH".into(), settings.path.clone()),
        ("HOME".into(), settings.home.clone()),
        ("LANG".into(), settings.lang.clone()),
        ("TMPDIR".into(), scratch.as_os_str().to_owned()),
        ("KVERN_FUNCTION".into(), function.name.as_str().into()),
    ];
    variables.extend(function.env.iter().map(|(name, value)| (name.into(), value.into())));
    variables
}

/// The variables of one attempt; the shims set the same.
pub(super) fn of_attempt(context: &Context) -> Vec<(OsString, OsString)> {
    let mut variables: Vec<(OsString, OsString)> = vec![
        ("KVERN_ATTEMPT".into(), context.attempt.to_string().into()),
        ("KVERN_ATTEMPTS_MAX".into(), context.attempts_max.to_string().into()),
        ("KVERN_DEADLINE_MS".into(), context.deadline.to_string().into()),
    ];
    variables.extend(context.job.map(|id| ("KVERN_JOB_ID".into(), id.to_string().into())));
    let content_type = context.content_type.as_ref();
    variables.extend(content_type.map(|content_type| ("KVERN_CONTENT_TYPE".into(), content_type.into())));
    variables
}
