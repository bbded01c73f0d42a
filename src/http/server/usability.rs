//! Whether a request can still be used, and what is raised in its handler if not.

use std::borrow::Cow;
use std::io;

use super::response::{LENGTH_EXCEEDED, LENGTH_NOT_USED};
use crate::http::wire::header_lines::{INVALID_NAME, INVALID_VALUE, Misuse};
use crate::sys::os::error_text;

/// What is raised when a request is used after its refusal, or after its connection has failed.
pub const FAULTY: Misuse = "Tried to use faulty request handle";

/// Why a call of the handler failed.
#[derive(Debug)]
pub enum Problem {
    /// The handler's mistake.
    Misuse(Cow<'static, str>),
    /// The request was refused, in these words.
    Refused(String),
    /// The connection failed.
    Io(io::Error),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Problem::Io(error)
    }
}

impl From<String> for Problem {
    fn from(text: String) -> Self {
        Problem::Misuse(text.into())
    }
}

impl From<Misuse> for Problem {
    fn from(text: Misuse) -> Self {
        Problem::Misuse(text.into())
    }
}

impl Problem {
    /// A header line with this name was not accepted.
    #[cold]
    pub fn of_header(text: Misuse, name: &[u8]) -> Self {
        let name = name.escape_ascii();
        match text {
            INVALID_NAME => {
                format!("{text} \"{name}\": remove blanks, colons and control characters").into()
            }
            INVALID_VALUE => {
                format!("{text}: {name}. Remove or encode line ends and other control characters")
                    .into()
            }
            text => text.into(),
        }
    }

    /// The body of the response is not as it has to be. `length`: the announced length, and how many bytes
    /// were sent or were to be sent, if a length was announced.
    #[cold]
    pub fn of_body(text: Misuse, length: Option<(u64, u64)>) -> Self {
        match (text, length) {
            (LENGTH_EXCEEDED, Some((announced, sent))) => {
                format!("{text}: Content-Length is {announced}, but {sent} bytes were to be sent")
                    .into()
            }
            (LENGTH_NOT_USED, Some((announced, sent))) => {
                format!("{text}: Content-Length is {announced}, but only {sent} bytes were sent")
                    .into()
            }
            _ => text.into(),
        }
    }
}

/// A problem that the client has caused, with the text that was raised in the handler.
#[derive(Debug)]
pub enum ClientFault {
    /// The request was refused while it was handled.
    Refused(String),
    /// The connection has failed.
    Lost(String),
}

impl ClientFault {
    /// What was raised.
    pub fn words(&self) -> &str {
        match self {
            ClientFault::Refused(words) | ClientFault::Lost(words) => words,
        }
    }
}

/// Whether the current request can be used.
#[derive(Debug)]
pub struct Usability {
    /// Nothing was done with the request yet.
    pub is_fresh: bool,
    /// The request cannot be used any more.
    pub is_faulty: bool,
    /// What was raised last without the handler's fault.
    pub client_fault: Option<ClientFault>,
}

impl Default for Usability {
    fn default() -> Self {
        Usability { is_fresh: true, is_faulty: false, client_fault: None }
    }
}

impl Usability {
    /// # Errors
    /// The request cannot be used any more.
    pub fn check(&self) -> Result<(), Problem> {
        match self.is_faulty {
            true => Err(FAULTY.into()),
            false => Ok(()),
        }
    }

    /// Marks the request as used.
    ///
    /// # Errors
    /// As [`Usability::check`].
    pub fn touch(&mut self) -> Result<(), Problem> {
        self.check()?;
        self.is_fresh = false;
        Ok(())
    }

    /// Notes whether the connection has failed.
    ///
    /// # Errors
    /// Those of `outcome`.
    pub fn note<R>(&mut self, outcome: Result<R, Problem>) -> Result<R, Problem> {
        self.is_faulty |= matches!(outcome, Err(Problem::Io(_)));
        outcome
    }

    /// The text that is raised for a problem. It is remembered if the client has caused it.
    pub fn raise(&mut self, problem: Problem) -> Cow<'static, str> {
        let (text, blame): (_, fn(String) -> ClientFault) = match problem {
            Problem::Misuse(text) => return text,
            Problem::Refused(words) => (words, ClientFault::Refused),
            Problem::Io(error) => (error_text::reason(&error), ClientFault::Lost),
        };
        self.client_fault = Some(blame(text.clone()));
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn misuse(problem: Problem) -> String {
        Usability::default().raise(problem).into()
    }

    #[test]
    fn a_request_whose_connection_has_failed_cannot_be_used() {
        let mut usability = Usability::default();
        assert!(usability.is_fresh);
        usability.touch().unwrap();
        assert!(!usability.is_fresh);
        let failure = io::Error::from_raw_os_error(libc::EPIPE).into();
        let problem = usability.note::<()>(Err(failure)).unwrap_err();
        assert_eq!(usability.raise(problem), "Broken pipe");
        assert!(
            matches!(&usability.client_fault, Some(ClientFault::Lost(text)) if text == "Broken pipe")
        );
        assert!(matches!(usability.touch(), Err(Problem::Misuse(text)) if text == FAULTY));
    }

    #[test]
    fn mistakes_of_the_handler_are_told_and_not_remembered() {
        let mut usability = Usability::default();
        assert_eq!(usability.raise("oh".into()), "oh");
        assert!(usability.client_fault.is_none() && !usability.is_faulty);
        usability.raise(Problem::Refused("no".into()));
        assert_eq!(usability.client_fault.as_ref().map(ClientFault::words), Some("no"));
    }

    #[test]
    fn texts_name_the_header_and_the_length() {
        assert!(misuse(Problem::of_header(INVALID_NAME, b"a b")).contains("\"a b\": remove"));
        assert!(misuse(Problem::of_header(INVALID_VALUE, b"a\n")).contains(": a\\n. Remove"));
        assert!(
            misuse(Problem::of_body(LENGTH_EXCEEDED, Some((3, 4)))).contains("is 3, but 4 bytes")
        );
        assert!(
            misuse(Problem::of_body(LENGTH_NOT_USED, Some((3, 2)))).contains("is 3, but only 2")
        );
        assert_eq!(misuse(Problem::of_body(LENGTH_NOT_USED, None)), LENGTH_NOT_USED);
    }
}
