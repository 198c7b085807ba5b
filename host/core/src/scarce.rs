//! What a process runs out of by the limits of its system: address space, descriptors, threads. Who meets such a limit
//! is at no fault; it is a matter of the machine, and of whoever set the limit.

use std::error::Error;
use std::io;

/// What the system refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Scarce {
    #[error("the system gives this process no more memory")]
    Memory,
    #[error("this process may open no more files")]
    Descriptors,
    #[error("the system starts no more threads for this process")]
    Threads,
}

#[derive(Debug)]
struct NoThread(String);

impl std::fmt::Display for NoThread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for NoThread {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&Scarce::Threads)
    }
}

/// `ENOMEM`, `ENFILE` and `EMFILE`, the same on every Unix.
const CODES: [(i32, Scarce, &str); 3] = [
    (12, Scarce::Memory, "(os error 12)"),
    (23, Scarce::Descriptors, "(os error 23)"),
    (24, Scarce::Descriptors, "(os error 24)"),
];

impl Scarce {
    /// What the system refused with this error, if that is why it failed.
    #[must_use]
    pub fn of_io(error: &io::Error) -> Option<Self> {
        match error.raw_os_error() {
            Some(code) => CODES.iter().find(|(known, ..)| *known == code).map(|(_, scarce, _)| *scarce),
            None => Self::behind(error),
        }
    }

    /// The same of an error, or of any of its causes. Some libraries keep of their cause only its text, which ends with
    /// the code.
    #[must_use]
    pub fn behind(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(scarce) = error.downcast_ref::<Self>() {
                return Some(*scarce);
            }
            let code = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
            let text = error.to_string();
            let is = |(known, _, words): &&(i32, Self, &str)| code == Some(*known) || text.contains(words);
            if let Some((_, scarce, _)) = CODES.iter().find(is) {
                return Some(*scarce);
            }
            // An I/O error passes over what it was made of.
            let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            next = inner.map(|inner| inner as &(dyn Error + 'static)).or_else(|| error.source());
        }
        None
    }

    /// Why a thread could not be started: the system's own code for it means many other things, too.
    #[must_use]
    pub fn thread(error: &io::Error) -> io::Error {
        io::Error::other(NoThread(error.to_string()))
    }

    /// Stable and snake_case.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Memory => "no_memory",
            Self::Descriptors => "too_few_descriptors",
            Self::Threads => "too_few_threads",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("read it")]
    struct Wrapped(#[source] io::Error);

    #[test]
    fn what_the_system_refused_is_known_through_other_errors() {
        for (code, scarce, _) in CODES {
            let error = || io::Error::from_raw_os_error(code);
            assert_eq!(Scarce::of_io(&error()), Some(scarce));
            assert_eq!(Scarce::behind(&Wrapped(error())), Some(scarce));
            // As crate tempfile does.
            let text = io::Error::other(format!("{} at path \"/x\"", error()));
            assert_eq!(Scarce::of_io(&text), Some(scarce), "{text}");
        }
        assert_eq!(Scarce::behind(&Wrapped(io::Error::other(Scarce::Threads))), Some(Scarce::Threads));
        let thread = Scarce::thread(&io::Error::from_raw_os_error(11));
        assert_eq!(Scarce::behind(&Wrapped(thread)), Some(Scarce::Threads));
    }

    #[test]
    fn other_errors_are_none_of_it() {
        for code in [1, 2, 13, 28, 122] {
            assert_eq!(Scarce::behind(&Wrapped(io::Error::from_raw_os_error(code))), None, "{code}");
        }
        assert_eq!(Scarce::of_io(&io::Error::other("it is 12")), None);
    }
}
