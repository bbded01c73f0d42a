//! The content coding of a response.

use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::body::Body;
use super::buffer::ResponseBuffer;
use super::compression::{Compressing, Encoder};
use super::fields::Fields;
use crate::http::wire::header_lines::Misuse;
use crate::sys::os::output_slot::{DeferredOutput, Encode};

/// Whether the body of a response is compressed.
#[derive(Debug, Default)]
pub struct ResponseCoding {
    /// What may compress the body, and whether the client accepts that, until the head is finished.
    offer: Option<(Rc<Compressing>, bool)>,
    /// What does. While output waits, whoever sends it takes what this has kept.
    encoder: Option<Arc<Mutex<Encoder>>>,
    /// The body is compressed for clients that accept it, whatever this one does.
    suits: bool,
}

impl ResponseCoding {
    /// The body is to be compressed if that suits it, and the client accepts it.
    pub fn offer(&mut self, compressing: Rc<Compressing>, accepts: bool) {
        *self = ResponseCoding { offer: Some((compressing, accepts)), ..ResponseCoding::default() };
    }

    /// The body stays as it is.
    pub fn withdraw(&mut self) {
        *self = ResponseCoding::default();
    }

    /// Whether the body is being compressed.
    pub fn is_active(&self) -> bool {
        self.encoder.is_some()
    }

    /// Whether the body is compressed for clients that accept it: this one may be another one.
    pub fn is_negotiable(&self) -> bool {
        self.suits
    }

    /// The header lines are complete, and tell whether the body is compressed.
    #[inline]
    pub fn begin(
        &mut self,
        buffer: &mut ResponseBuffer,
        status: u16,
        fields: &mut Fields,
        head_request: bool,
    ) {
        let Some((compressing, accepts)) = self.offer.take() else { return };
        let (start, length) = (buffer.head_start(), fields.length());
        let lines = buffer.bytes.get(start..).unwrap_or_default();
        self.suits = compressing.suits(lines, status, length);
        if !self.suits {
            return;
        }
        let encoder = compressing.begin(&mut buffer.bytes, start, status, length, accepts);
        if encoder.is_some() {
            fields.forget_length();
        }
        self.encoder = encoder.filter(|_| !head_request).map(Mutex::new).map(Arc::new);
    }

    fn encoder(&self) -> Option<MutexGuard<'_, Encoder>> {
        Some(self.encoder.as_deref()?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Compresses a piece of the body, if it is compressed; what is ready.
    ///
    /// # Errors
    /// As [`Encoder::take`].
    #[cold]
    pub fn take(&self, piece: &[u8]) -> Result<Vec<u8>, Misuse> {
        self.encoder().map_or(Ok(Vec::new()), |mut encoder| encoder.take(piece))
    }

    /// What makes all pieces readable.
    #[cold]
    pub fn flush(&self) -> Vec<u8> {
        self.encoder().map_or_else(Vec::new, |mut encoder| encoder.flush())
    }

    /// The end of the compressed body.
    ///
    /// # Errors
    /// As [`Encoder::finish`].
    #[cold]
    pub fn finish(&self) -> Result<Vec<u8>, Misuse> {
        self.encoder().map_or(Ok(Vec::new()), |mut encoder| encoder.finish())
    }

    /// Adds to output that waits what has kept a part of the body, if something has.
    #[cold]
    pub fn defer(&self, mut waiting: DeferredOutput, body: &Body) -> DeferredOutput {
        if let Some(encoder) = self.rest() {
            waiting.completion = body.completion_of_more(waiting.bytes.len());
            waiting.extras().encoder = Some(encoder);
        }
        waiting
    }

    fn rest(&self) -> Option<Arc<dyn Encode>> {
        let encoder = self.encoder.as_ref()?;
        self.encoder()?.has_rest().then(|| encoder.clone() as Arc<dyn Encode>)
    }

    /// The announced length of the body before it is compressed, and how much of it there was so far, while that
    /// counts. None if the body is not compressed.
    pub fn length(&self) -> Option<Option<(u64, u64)>> {
        self.encoder().map(|encoder| encoder.length())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head_of(coding: &mut ResponseCoding) -> String {
        let (mut buffer, mut fields) = (ResponseBuffer::default(), Fields::new(false, false));
        buffer.begin_head();
        buffer.bytes.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n");
        coding.begin(&mut buffer, 200, &mut fields, false);
        String::from_utf8(buffer.bytes).unwrap()
    }

    #[test]
    fn a_body_is_compressed_if_that_was_offered_and_not_withdrawn() {
        let mut coding = ResponseCoding::default();
        assert!(!head_of(&mut coding).contains("gzip") && coding.length().is_none());
        coding.offer(Rc::default(), true);
        assert!(head_of(&mut coding).contains("Content-Encoding: gzip"));
        assert!(coding.is_negotiable() && coding.rest().is_none());
        assert!(coding.take(b"text").is_ok() && coding.rest().is_some());
        assert!(!coding.flush().is_empty() && coding.rest().is_none());
        coding.withdraw();
        assert!(!coding.is_negotiable());
        coding.offer(Rc::default(), false);
        assert!(head_of(&mut coding).contains("Vary") && !coding.is_active());
        assert!(coding.is_negotiable());
    }
}
