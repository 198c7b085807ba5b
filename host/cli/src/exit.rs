//! Exit codes, and the text of errors.

use dovetail_service::{Blame, Error};

/// How a command ended that gave no error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0.
    Done,
    /// 1: a run failed, or a check found errors. They were printed.
    Failed,
    /// 3: the host failed. The printed document contains the error.
    HostFailed,
    /// 130: a signal interrupted the command. The open work was named.
    Interrupted,
}

impl Exit {
    /// The exit code of the process.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::HostFailed => 3,
            Self::Interrupted => 130,
        }
    }
}

/// 2 for wrong usage, 3 for a failure of the host.
pub(crate) fn exit_code(error: &Error) -> u8 {
    match error.blame {
        Blame::Usage => 2,
        Blame::Host => 3,
    }
}

/// The error with its remedy in the words of this front door: the service does not know the options of a command.
pub(crate) fn with_options(error: Error) -> Error {
    let option = match error.code {
        "no_worker" => "leave --detach out".to_owned(),
        "grant_needed" => {
            let grants = error.details.get("grants").and_then(|grants| grants.as_array()).into_iter().flatten();
            let options: Vec<_> = grants.filter_map(|g| g.as_str()).map(|grant| format!("--grant {grant}")).collect();
            format!("add {}", options.join(" "))
        }
        _ => return error,
    };
    let help = error.help.as_deref().filter(|help| !help.is_empty());
    let help = help.map_or_else(|| option.clone(), |help| format!("{help}; {option}"));
    error.help(help)
}

/// The text for people: the message, a blank line, and the remedy.
pub(crate) fn error_text(error: &Error) -> String {
    let help = error.help.as_deref().filter(|help| !help.is_empty());
    let help = help.map_or_else(String::new, |help| format!("\n\nhelp: {help}"));
    format!("error: {}{help}", error.chain())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remedy_names_the_options_of_the_command() {
        let help = |error| with_options(error).help.unwrap();
        let needed = Error::usage("grant_needed", "").help("allow it").detail("grants", ["clocks", "http=https://a"]);
        assert_eq!(help(needed), "allow it; add --grant clocks --grant http=https://a");
        assert_eq!(help(Error::usage("no_worker", "").help("start one")), "start one; leave --detach out");
        assert_eq!(help(Error::usage("other", "").help("as before")), "as before");
    }

    #[test]
    fn an_error_tells_its_help_and_its_exit_code() {
        let error = Error::usage("x", "no such file").help("check the path");
        assert_eq!(error_text(&error), "error: no such file\n\nhelp: check the path");
        assert_eq!((exit_code(&error), exit_code(&Error::host("x", "y"))), (2, 3));
        assert_eq!(error_text(&Error::host("x", "y").help("")), "error: y");
    }
}
