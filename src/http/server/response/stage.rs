//! How far a response has come, and the error of a call that comes too early or too late.

use crate::http::wire::header_lines::Misuse;

pub const NO_STATUS: Misuse = "HTTP status has not been sent yet";
pub const STATUS_SENT: Misuse =
    "HTTP status has already been sent: call send_status once for each response";
pub const HEADERS_SENT: Misuse = "All HTTP headers have already been sent";
pub const FINISHED: Misuse = "Response has already been finished";
pub const HELD: Misuse = "The response is held: nothing more can be sent";

/// How far a response has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResponseStage {
    /// No final status yet.
    #[default]
    Start,
    /// Header lines of an informational response may follow.
    Interim,
    /// Header lines may follow.
    Head,
    /// The header section is complete.
    Body,
    /// The response is complete.
    Finished,
    /// Another process goes on with it.
    Held,
}

impl ResponseStage {
    /// Whether there is a final status: informational ones do not count.
    pub fn has_status(self) -> bool {
        !matches!(self, ResponseStage::Start | ResponseStage::Interim)
    }

    /// Whether header lines may follow.
    pub fn has_open_head(self) -> bool {
        matches!(self, ResponseStage::Head | ResponseStage::Interim)
    }

    /// Whether the header section has ended and the body has not.
    pub fn is_body(self) -> bool {
        self == ResponseStage::Body
    }

    /// Whether the response is complete, or another process goes on with it.
    pub fn is_over(self) -> bool {
        matches!(self, ResponseStage::Finished | ResponseStage::Held)
    }

    /// What is wrong about sending more.
    pub fn over(self) -> Misuse {
        if self == ResponseStage::Held { HELD } else { FINISHED }
    }

    /// Whether a status may be sent.
    pub fn takes_status(self) -> Result<(), Misuse> {
        match self {
            ResponseStage::Start | ResponseStage::Interim => Ok(()),
            ResponseStage::Head | ResponseStage::Body => Err(STATUS_SENT),
            ResponseStage::Finished | ResponseStage::Held => Err(self.over()),
        }
    }

    /// Whether a header line may be sent.
    pub fn takes_header(self) -> Result<(), Misuse> {
        match self {
            ResponseStage::Head | ResponseStage::Interim => Ok(()),
            ResponseStage::Start => Err(NO_STATUS),
            ResponseStage::Body => Err(HEADERS_SENT),
            ResponseStage::Finished | ResponseStage::Held => Err(self.over()),
        }
    }

    /// Whether data may be sent.
    pub fn takes_data(self) -> Result<(), Misuse> {
        match self {
            ResponseStage::Body => Ok(()),
            ResponseStage::Finished | ResponseStage::Held => Err(self.over()),
            _ => Err(NO_STATUS),
        }
    }

    /// Whether the head may still say that the connection will be closed.
    pub fn takes_close(self) -> Result<(), Misuse> {
        match self {
            ResponseStage::Body => Err(HEADERS_SENT),
            ResponseStage::Finished | ResponseStage::Held => Err(self.over()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_too_early_or_too_late_is_misuse() {
        use ResponseStage::{Body, Finished, Head, Held, Interim, Start};
        assert!(Start.takes_status().is_ok() && Interim.takes_status().is_ok());
        assert_eq!((Head.takes_status(), Held.takes_status()), (Err(STATUS_SENT), Err(HELD)));
        assert!(Head.takes_header().is_ok() && Interim.takes_header().is_ok());
        assert_eq!(
            (Start.takes_header(), Body.takes_header()),
            (Err(NO_STATUS), Err(HEADERS_SENT))
        );
        assert!(Body.takes_data().is_ok());
        assert_eq!((Head.takes_data(), Finished.takes_data()), (Err(NO_STATUS), Err(FINISHED)));
        assert_eq!((Head.takes_close(), Body.takes_close()), (Ok(()), Err(HEADERS_SENT)));
        assert!(!Interim.has_status() && Head.has_status() && Interim.has_open_head());
    }
}
