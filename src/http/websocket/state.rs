//! What the server keeps of a WebSocket between two messages, as bytes that follow the connection (pure).

/// What a connection is, beside its stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebSocketState {
    /// The name of the application's functions for it.
    pub handler: Vec<u8>,
    /// The request that it began with, for the log.
    pub label: Vec<u8>,
    /// The subprotocol, if one was agreed on.
    pub protocol: Option<Vec<u8>>,
    /// The size of the window for compression, as a power of two; 0: nothing is compressed.
    pub bits: u8,
    /// What the application keeps.
    pub value: Option<Vec<u8>>,
    /// What the client hears.
    pub topics: Vec<Vec<u8>>,
    /// A ping was sent, and nothing has come since.
    pub is_pinged: bool,
    /// For how many milliseconds the client has sent nothing but answers to pings.
    pub quiet: u64,
}

const PINGED: u8 = 1;
const PROTOCOL: u8 = 2;
const VALUE: u8 = 4;

impl WebSocketState {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        let flags = flag(self.is_pinged, PINGED)
            | flag(self.protocol.is_some(), PROTOCOL)
            | flag(self.value.is_some(), VALUE);
        let mut bytes = vec![flags, self.bits, self.topics.len() as u8];
        bytes.extend_from_slice(&self.quiet.to_le_bytes());
        let texts =
            [Some(&self.handler), Some(&self.label), self.protocol.as_ref(), self.value.as_ref()];
        for text in texts.into_iter().flatten().chain(&self.topics) {
            bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
            bytes.extend_from_slice(text);
        }
        bytes
    }

    /// From bytes; none if they are no encoding.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&[flags, bits, topics], rest) = bytes.split_first_chunk::<3>()?;
        let (quiet, mut rest) = rest.split_first_chunk::<8>()?;
        let mut text = |is_there: bool| {
            if !is_there {
                return Some(None);
            }
            let (length, after) = rest.split_first_chunk::<4>()?;
            let (text, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            rest = after;
            Some(Some(text.to_vec()))
        };
        let state = WebSocketState {
            handler: text(true)??,
            label: text(true)??,
            protocol: text(flags & PROTOCOL != 0)?,
            value: text(flags & VALUE != 0)?,
            topics: (0..topics).map(|_| text(true)?).collect::<Option<_>>()?,
            bits,
            is_pinged: flags & PINGED != 0,
            quiet: u64::from_le_bytes(*quiet),
        };
        rest.is_empty().then_some(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_survives_its_encoding_and_no_part_of_it_is_one() {
        let full = WebSocketState {
            handler: b"chat".to_vec(),
            label: b"GET /chat".to_vec(),
            protocol: Some(b"v1".to_vec()),
            bits: 15,
            value: Some(vec![0; 4096]),
            topics: vec![b"news".to_vec(), Vec::new()],
            is_pinged: true,
            quiet: 1 << 40,
        };
        let empty = WebSocketState { value: Some(Vec::new()), ..WebSocketState::default() };
        for state in [full, empty, WebSocketState::default()] {
            let bytes = state.encode();
            for cut in 0..bytes.len() {
                assert_eq!(WebSocketState::decode(&bytes[..cut]), None);
            }
            assert_eq!(WebSocketState::decode(&bytes), Some(state));
        }
    }
}
