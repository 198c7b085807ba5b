//! Resources that the system limits for a process: address space, descriptors, threads. An error of this kind is
//! neither the task's fault nor the store's: the limit or the machine is too small.

use std::error::Error;
use std::io;

/// The resource that the system refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Scarce {
    /// Memory or address space.
    #[error("the system gives this process no more memory")]
    Memory,
    /// File descriptors, of this process or of the machine.
    #[error("this process may open no more files")]
    Descriptors,
    /// Threads.
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

/// `ENOMEM`, `ENFILE` and `EMFILE`; the numbers are the same on every Unix. The text is the end of the message of
/// [`io::Error`].
const CODES: [(i32, Scarce, &str); 3] = [
    (12, Scarce::Memory, "(os error 12)"),
    (23, Scarce::Descriptors, "(os error 23)"),
    (24, Scarce::Descriptors, "(os error 24)"),
];

impl Scarce {
    /// The resource that caused this I/O error, if a limit caused it.
    #[must_use]
    pub fn of_io(error: &io::Error) -> Option<Self> {
        match error.raw_os_error() {
            Some(code) => CODES.iter().find(|(known, ..)| *known == code).map(|(_, scarce, _)| *scarce),
            None => Self::behind(error),
        }
    }

    /// The resource that caused this error, if the error or any of its causes is one of the known codes. Some libraries
    /// keep only the text of their cause; the text contains the code.
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
            // `source` of an I/O error skips the error that it wraps, so look at the wrapped error first.
            let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            next = inner.map(|inner| inner as &(dyn Error + 'static)).or_else(|| error.source());
        }
        None
    }

    /// Marks an error of starting a thread. The system's code for it (`EAGAIN`) also has many other meanings, so the
    /// code alone is not enough.
    #[must_use]
    pub fn thread(error: &io::Error) -> io::Error {
        io::Error::other(NoThread(error.to_string()))
    }

    /// A stable code in snake_case.
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
            // The crate tempfile reports errors in this form.
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
