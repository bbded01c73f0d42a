//! Reads a form: collects some fields, and passes others on in chunks.
//!
//! Source: reference, "request:stream_post_param". All chunks of a field except the last one have
//! the maximum size, so they do not depend on how the bytes arrive.

use super::multipart::{MultipartEvent, MultipartLimits, MultipartParser, Part};
use super::urlencoded::{UrlencodedEvent, UrlencodedLimits, UrlencodedParser};
use crate::http::wire::media_type::MediaType;
use crate::http::wire::refusal::Refusal;

/// The media types of forms.
const URLENCODED: &str = "application/x-www-form-urlencoded";
const MULTIPART: &str = "multipart/form-data";

#[derive(Debug)]
enum FormParser {
    Urlencoded(UrlencodedParser),
    Multipart(Box<MultipartParser>),
}

/// A field of the form, complete or in progress.
#[derive(Debug)]
pub struct FormField {
    /// The field's name, and in multipart forms the file name and content type if there are any.
    pub part: Part,
    /// Its value.
    pub value: Vec<u8>,
}

/// What the caller has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormStep {
    /// Decide about the field that begins ([`Form::current`]): call [`Form::stream_field`], or
    /// continue to collect it.
    Begin,
    /// Take [`Form::chunk`] of a streamed field, then [`Form::chunk_taken`].
    Chunk,
    /// A streamed field has ended.
    FieldEnd,
    /// Provide more of the body.
    More,
    /// The form is complete.
    Done,
}

/// A form that is being received.
#[derive(Debug)]
pub struct Form {
    parser: FormParser,
    /// Whether to report each field that begins.
    asks: bool,
    /// The longest chunk.
    maximum: usize,
    /// The collected fields.
    fields: Vec<FormField>,
    /// The streamed field; its value is the bytes that wait to be taken.
    streamed: Option<FormField>,
    /// Whether the streamed field has all its bytes.
    streamed_ended: bool,
}

/// An event of the parser, without its borrow.
enum Seen {
    Begin(Part),
    Data,
    End,
    Idle,
}

impl Form {
    /// A form of the given Content-Type with up to `limit` fields, parts without a name included;
    /// `asks`: report every field that begins.
    ///
    /// # Errors
    /// 415 for types that are no form, 400 for a multipart form without a valid boundary.
    pub fn new(
        content_type: &[u8],
        limit: usize,
        asks: bool,
        maximum: usize,
    ) -> Result<Form, Refusal> {
        let media_type = MediaType::parse(content_type);
        let parser = if media_type.is(URLENCODED) {
            FormParser::Urlencoded(UrlencodedParser::new(UrlencodedLimits::new(limit)))
        } else if media_type.is(MULTIPART) {
            let parser = MultipartParser::new(content_type, MultipartLimits::new(limit));
            FormParser::Multipart(Box::new(parser.map_err(|e| Refusal::of_body(e.status(), e))?))
        } else {
            return Err(Refusal::unsupported_media_type("Request body is not a form"));
        };
        let (fields, streamed) = (Vec::new(), None);
        Ok(Form { parser, asks, maximum, fields, streamed, streamed_ended: false })
    }

    /// Whether a body of this Content-Type is a form.
    pub fn reads(content_type: &[u8]) -> bool {
        let media_type = MediaType::parse(content_type);
        media_type.is(URLENCODED) || media_type.is(MULTIPART)
    }

    /// Whether a body of this Content-Type is an urlencoded form.
    pub fn is_urlencoded(content_type: &[u8]) -> bool {
        MediaType::parse(content_type).is(URLENCODED)
    }

    /// Whether the form has metadata for its fields.
    pub fn is_multipart(&self) -> bool {
        matches!(self.parser, FormParser::Multipart(_))
    }

    /// Takes the collected fields; for use when the form is complete.
    pub fn take_fields(&mut self) -> Vec<FormField> {
        std::mem::take(&mut self.fields)
    }

    /// Takes fields back, but for their values.
    pub fn keep_parts(&mut self, mut fields: Vec<FormField>) {
        fields.iter_mut().for_each(|field| field.value = Vec::new());
        self.fields = fields;
    }

    /// The field that begins.
    pub fn current(&self) -> Option<&Part> {
        self.fields.last().map(|field| &field.part)
    }

    /// Passes the field that begins on in chunks instead of collecting it.
    pub fn stream_field(&mut self) {
        self.streamed = self.fields.pop();
        self.streamed_ended = false;
    }

    /// The next bytes of the streamed field, up to the chunk size.
    pub fn chunk(&self) -> &[u8] {
        let value = self.streamed.as_ref().map_or(&[][..], |field| &field.value);
        value.get(..self.maximum).unwrap_or(value)
    }

    /// Drops the bytes of [`Form::chunk`].
    pub fn chunk_taken(&mut self) {
        let size = self.chunk().len();
        if let Some(field) = &mut self.streamed {
            field.value.drain(..size);
        }
    }

    /// Continues with `body`, all bytes that are available; returns how many it has consumed.
    ///
    /// `ended`: there will be no more.
    ///
    /// # Errors
    /// A refusal if the form is malformed or exceeds a limit.
    pub fn step(&mut self, body: &[u8], ended: bool) -> Result<(usize, FormStep), Refusal> {
        let mut total = 0;
        loop {
            if let Some(field) = &self.streamed {
                if field.value.len() >= self.maximum
                    || self.streamed_ended && !field.value.is_empty()
                {
                    return Ok((total, FormStep::Chunk));
                }
                if self.streamed_ended {
                    self.streamed = None;
                    return Ok((total, FormStep::FieldEnd));
                }
            }
            let rest = body.get(total..).unwrap_or_default();
            if rest.is_empty() && !ended {
                return Ok((total, FormStep::More));
            }
            let (used, seen) = self.parse(rest)?;
            total += used;
            match seen {
                Seen::Begin(part) => {
                    self.fields.push(FormField { part, value: Vec::new() });
                    if self.asks {
                        return Ok((total, FormStep::Begin));
                    }
                }
                Seen::Data => {}
                Seen::End => self.streamed_ended = self.streamed.is_some(),
                Seen::Idle if rest.is_empty() => return Ok((total, FormStep::Done)),
                Seen::Idle => {}
            }
        }
    }

    /// Lets the parser consume some of `input`, or end if it is empty; appends data to the field.
    fn parse(&mut self, input: &[u8]) -> Result<(usize, Seen), Refusal> {
        let field = self.streamed.as_mut().or(self.fields.last_mut());
        let keep = |data: &[u8]| {
            if let Some(field) = field {
                field.value.extend_from_slice(data);
            }
            Seen::Data
        };
        match &mut self.parser {
            FormParser::Urlencoded(parser) => {
                let outcome = match input.is_empty() {
                    true => parser.finish().map(|event| (0, event)),
                    false => parser.push(input),
                };
                let (used, event) = outcome.map_err(|e| Refusal::of_body(e.status(), e))?;
                let seen = match event {
                    UrlencodedEvent::Begin(name) => Seen::Begin(Part {
                        field_name: name.to_vec(),
                        file_name: None,
                        content_type: None,
                    }),
                    UrlencodedEvent::Value(data) => keep(data),
                    UrlencodedEvent::End => Seen::End,
                    UrlencodedEvent::More => Seen::Idle,
                };
                Ok((used, seen))
            }
            FormParser::Multipart(parser) if input.is_empty() => {
                parser.finish().map_err(|e| Refusal::of_body(e.status(), e))?;
                Ok((0, Seen::Idle))
            }
            FormParser::Multipart(parser) => {
                let (used, event) =
                    parser.push(input).map_err(|e| Refusal::of_body(e.status(), e))?;
                let seen = match event {
                    MultipartEvent::Begin(part) => Seen::Begin(part.clone()),
                    MultipartEvent::Data(data) => keep(data),
                    MultipartEvent::PartEnd => Seen::End,
                    MultipartEvent::End | MultipartEvent::More => Seen::Idle,
                };
                Ok((used, seen))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MULTIPART: &[u8] = b"multipart/form-data; boundary=XX";

    /// What happens to a form that comes in `pieces`; fields whose names begin with `s` are streamed.
    fn events(
        content_type: &[u8],
        pieces: &[&[u8]],
        maximum: usize,
    ) -> Result<Vec<String>, Refusal> {
        let mut form = Form::new(content_type, 100, true, maximum)?;
        let mut events = Vec::new();
        let mut waiting: Vec<u8> = Vec::new();
        let mut pieces = pieces.iter();
        let mut ended = false;
        loop {
            let (used, step) = form.step(&waiting, ended)?;
            waiting.drain(..used);
            match step {
                FormStep::Begin => {
                    if form.current().is_some_and(|part| part.field_name.starts_with(b"s")) {
                        events.push(format!("begin {:?}", form.current().cloned()));
                        form.stream_field();
                    }
                }
                FormStep::Chunk => {
                    assert!(!form.chunk().is_empty() && form.chunk().len() <= maximum);
                    events.push(String::from_utf8_lossy(form.chunk()).into_owned());
                    form.chunk_taken();
                }
                FormStep::FieldEnd => events.push("end".into()),
                FormStep::More => match pieces.next() {
                    Some(piece) => waiting.extend_from_slice(piece),
                    None => ended = true,
                },
                FormStep::Done => break,
            }
        }
        events.extend(form.take_fields().iter().map(|field| format!("{field:?}")));
        Ok(events)
    }

    fn text(events: &[&str]) -> Vec<String> {
        events.iter().map(|event| event.to_string()).collect()
    }

    #[test]
    fn chunks_are_as_long_as_allowed_but_for_the_last_one() {
        let found = events(b"application/x-www-form-urlencoded", &[b"s=abc", b"de%66g&s2="], 3);
        let begin = |name: &str| {
            let part = Part { field_name: name.into(), file_name: None, content_type: None };
            format!("begin {:?}", Some(part))
        };
        let (first, second) = (begin("s"), begin("s2"));
        assert_eq!(found, Ok(text(&[&first, "abc", "def", "g", "end", &second, "end"])));
    }

    #[test]
    fn other_types_are_refused() {
        for content_type in ["", "text/plain", "application/json", "multipart/mixed; boundary=XX"] {
            let refusal = Form::new(content_type.as_bytes(), 100, false, 1).unwrap_err();
            assert_eq!(&refusal.status[..3], "415");
        }
        assert_eq!(
            &Form::new(b"multipart/form-data", 100, false, 1).unwrap_err().status[..3],
            "400"
        );
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_events(
            fields in proptest::collection::vec(("[sk][a-c]?", "[a-z\r\n-]{0,20}"), 0..4),
            size in 1usize..12,
            maximum in 1usize..9,
        ) {
            let mut body = String::new();
            for (name, value) in &fields {
                let head = format!("Content-Disposition: form-data; name=\"{name}\"");
                body.push_str(&format!("--XX\r\n{head}\r\n\r\n{value}\r\n"));
            }
            body.push_str("--XX--\r\n");
            let pieces: Vec<&[u8]> = body.as_bytes().chunks(size).collect();
            let whole = events(MULTIPART, &[body.as_bytes()], maximum);
            prop_assert!(whole.is_ok());
            prop_assert_eq!(events(MULTIPART, &pieces, maximum), whole);
        }
    }
}
