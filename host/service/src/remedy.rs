//! Remedies for failures of steps and runs. Records have the kind and the code of a failure; the remedy follows from
//! these.

use crate::FailureKind;

/// The remedy for a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remedy {
    /// The remedy for the cause.
    pub help: &'static str,
    /// The words before "retry the run" if a retry may succeed, such as "after the repair". None if a retry would fail
    /// in the same way.
    pub retry: Option<&'static str>,
}

impl Remedy {
    /// The remedy for a failure of this kind and code. `retryable`: the task says that another attempt may succeed.
    #[must_use]
    pub fn of(kind: FailureKind, code: &str, retryable: bool) -> Self {
        Self { help: help(kind, code), retry: retry_helps(kind, code, retryable) }
    }
}

/// Under which condition a retry of the run may succeed; None if it cannot. A retry keeps the outcomes of steps that
/// succeeded, the versions and the inputs.
fn retry_helps(kind: FailureKind, code: &str, retryable: bool) -> Option<&'static str> {
    match (kind, code) {
        (_, "models_missing" | "unknown_model") => Some("then"),
        (_, "timeout") | (FailureKind::Timeout, _) => Some("if the machine was only busy,"),
        (FailureKind::Unavailable | FailureKind::LostWorker, _) => Some("after the repair"),
        (FailureKind::Cancelled, _) | (_, "cancelled") => Some("or"),
        _ if retryable => Some("if the cause has passed,"),
        _ => None,
    }
}

/// The remedy for the cause.
fn help(kind: FailureKind, code: &str) -> &'static str {
    match (kind, code) {
        (_, "models_missing") => "install the models with `dovetail models pull`",
        (_, "unknown_model") => "name one of the installed models; `dovetail models list` lists them",
        (_, "built_without_opencv") => "use a dovetail that was built with OpenCV",
        (_, "undecodable" | "unsupported_format") => {
            "the file is damaged, cut off, or not a picture: download or export it again, as JPEG, PNG, WebP or BMP"
        }
        (_, "too_large") => "scale the picture down first",
        // The timeout of the run, not of a step.
        (FailureKind::Limit, "timeout") => {
            "give the run more time (`timeout` of the pipeline, beside `steps`), or smaller inputs"
        }
        (_, "timeout") | (FailureKind::Timeout, _) => {
            "give the step more time (its `timeout` in the pipeline, up to `time` of the host's limits), or smaller \
             inputs"
        }
        (_, "out_of_memory") => "raise `memory` in the plugin's [limits], or give it smaller inputs",
        (FailureKind::InvalidInput, _) => {
            "correct the inputs and run it again; the task's log (`dovetail runs logs RUN`) may say more"
        }
        (_, "poison") => "run the task alone with `dovetail task run`, to see why its process ends (memory?)",
        (FailureKind::Unavailable | FailureKind::LostWorker, _) => "`dovetail doctor` checks what the program needs",
        (FailureKind::Trap | FailureKind::Panic | FailureKind::BadOutput, _) => {
            "this is a mistake in the task: tell its author, with the lines above"
        }
        (_, "too_many_pixels") => {
            "the host limits how many pixels a task may hold: its author can release pictures earlier, or use smaller \
             ones"
        }
        (FailureKind::Limit, _) => "raise the limit in the plugin's plugin.toml, or give it smaller inputs",
        (FailureKind::Cancelled, _) | (_, "cancelled") => "submit it again if the result is wanted",
        _ => "`dovetail runs logs RUN` shows the task's log",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_is_named_where_it_may_succeed() {
        for (kind, code, retryable) in [
            (FailureKind::Unavailable, "no_memory", false),
            (FailureKind::LostWorker, "poison", false),
            (FailureKind::Timeout, "timeout", false),
            (FailureKind::Limit, "timeout", false),
            (FailureKind::Unavailable, "models_missing", false),
            (FailureKind::Cancelled, "cancelled", false),
            (FailureKind::Failed, "busy", true),
        ] {
            assert!(Remedy::of(kind, code, retryable).retry.is_some(), "{kind:?} {code}");
        }
        for (kind, code) in [
            (FailureKind::Trap, "trap"),
            (FailureKind::InvalidInput, "undecodable"),
            (FailureKind::Limit, "out_of_memory"),
            (FailureKind::Failed, "busy"),
        ] {
            assert_eq!(Remedy::of(kind, code, false).retry, None, "{kind:?} {code}");
        }
    }

    #[test]
    fn the_help_is_of_the_code_where_it_has_its_own() {
        let help = |kind, code| Remedy::of(kind, code, false).help;
        assert!(help(FailureKind::LostWorker, "poison").contains("`dovetail task run`"));
        assert!(help(FailureKind::Unavailable, "models_missing").contains("`dovetail models pull`"));
        assert!(help(FailureKind::Limit, "timeout").contains("of the pipeline"), "the timeout of a run");
        assert!(help(FailureKind::Timeout, "timeout").contains("give the step more time"));
        assert!(help(FailureKind::Trap, "trap").contains("tell its author"));
        assert_eq!(help(FailureKind::Failed, "no_such_code"), "`dovetail runs logs RUN` shows the task's log");
    }
}
