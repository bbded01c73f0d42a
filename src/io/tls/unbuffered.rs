//! What `rustls` wants done between records that were received and those to be sent.

use rustls::AlertDescription;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic,
};

use super::record::{ALERT, MAX_PLAINTEXT};
use super::records::Records;

/// What processing has come to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Something is to be sent; there may be more.
    Encoded,
    /// Input was opened; there may be more.
    Opened,
    /// The peer has said that it sends no more.
    PeerEnded,
    /// More has to be received for anything further.
    Nothing,
}

/// Carries out what the library asks for; how many received bytes are done with.
pub fn step<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    plaintext: &mut Vec<u8>,
    outgoing: &mut Records,
) -> (usize, Result<Step, rustls::Error>) {
    let mut discard = status.discard;
    let step = match status.state {
        Err(error) => Err(error),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                None => break Ok(Step::Opened),
                Some(Err(error)) => break Err(error),
                Some(Ok(record)) => {
                    discard += record.discard;
                    plaintext.extend_from_slice(record.payload);
                }
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            let mut size = 0;
            loop {
                match data.encode(outgoing.room(size)) {
                    Ok(n) => {
                        outgoing.written(n);
                        break Ok(Step::Encoded);
                    }
                    Err(EncodeError::InsufficientSize(error)) => size = error.required_size,
                    Err(EncodeError::AlreadyEncoded) => break Ok(Step::Nothing),
                }
            }
        }
        // From here on it is our concern that it gets there.
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Step::Encoded)
        }
        Ok(ConnectionState::PeerClosed) => Ok(Step::PeerEnded),
        Ok(_) => Ok(Step::Nothing),
    };
    (discard, step)
}

/// The alert that received bytes begin with, if it ends a handshake in which the library would wait for more: the peer
/// sends no more; or a client begins with it instead of a hello (`has_begun`: the hello was there).
pub fn end_of_handshake(received: &[u8], has_begun: bool) -> Option<AlertDescription> {
    let [ALERT, _, _, 0, 2, _, description, ..] = *received else { return None };
    let alert = AlertDescription::from(description);
    (alert == AlertDescription::CloseNotify || !has_begun).then_some(alert)
}

/// Seals `bytes`; whether that was possible.
pub fn seal<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    bytes: &[u8],
    outgoing: &mut Records,
) -> bool {
    // Header, nonce and tag of each record, and a message that changes the keys.
    let size = bytes.len() + (bytes.len() / MAX_PLAINTEXT + 1) * 64 + 128;
    match status.state {
        Ok(ConnectionState::WriteTraffic(mut traffic)) => {
            write(&mut traffic, size, outgoing, |traffic, room| traffic.encrypt(bytes, room))
        }
        _ => false,
    }
}

/// Tells the peer that nothing further comes (RFC 8446, 6.1).
pub fn close_notify<Data>(status: UnbufferedStatus<'_, '_, Data>, outgoing: &mut Records) {
    if let Ok(ConnectionState::WriteTraffic(mut traffic)) = status.state {
        write(&mut traffic, 128, outgoing, |traffic, room| traffic.queue_close_notify(room));
    }
}

fn write<Data>(
    traffic: &mut WriteTraffic<'_, Data>,
    mut size: usize,
    outgoing: &mut Records,
    encrypt: impl Fn(&mut WriteTraffic<'_, Data>, &mut [u8]) -> Result<usize, EncryptError>,
) -> bool {
    loop {
        match encrypt(traffic, outgoing.room(size)) {
            Ok(n) => {
                outgoing.written(n);
                return true;
            }
            Err(EncryptError::InsufficientSize(error)) => size = error.required_size,
            Err(EncryptError::EncryptExhausted) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_ends_a_handshake_and_a_warning_only_before_it_begins() {
        let alert = |level, description| [ALERT, 3, 3, 0, 2, level, description];
        for has_begun in [false, true] {
            let end = end_of_handshake(&alert(1, 0), has_begun);
            assert_eq!(end, Some(AlertDescription::CloseNotify));
            let warning = end_of_handshake(&alert(1, 112), has_begun);
            assert_eq!(warning, (!has_begun).then_some(AlertDescription::UnrecognisedName));
            assert_eq!(end_of_handshake(&alert(1, 0)[..6], has_begun), None, "incomplete");
            assert_eq!(end_of_handshake(&[22, 3, 3, 0, 2, 1, 0], has_begun), None, "a handshake");
        }
    }
}
