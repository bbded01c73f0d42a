//! Lines of text with named fields (pure).

use super::fields::{FIELDS, Field, Shown, push, shown};
use super::moment::Moment;
use super::values::{boolean, push_text};
use crate::known_options::hint;
use crate::server::ipc::request_record::{self, Closing, LogValue, Opening};

/// The prefix of the fields that handlers add.
const ADDED: &str = "field.";

/// A part of a line of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextPiece {
    /// It stands as it is.
    Literal(String),
    /// The value of a field, `-` if there is none.
    Field(Field),
    /// The value of a field that handlers add.
    Added(String),
}

/// The parts of a format.
///
/// # Errors
/// A field that does not exist, a brace that is not closed, or a line break.
pub fn parse(text: &str) -> Result<Vec<TextPiece>, String> {
    if text.contains(['\n', '\r']) {
        return Err("a format with a line break: each request has one line".to_owned());
    }
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, brace) = rest.split_at(at);
        literal.push_str(before);
        rest = &brace[1..];
        if rest.starts_with(&brace[..1]) {
            // Two braces stand for one.
            literal.push_str(&brace[..1]);
            rest = &rest[1..];
            continue;
        }
        let field = brace.starts_with('{').then(|| rest.split_once('}')).flatten();
        let Some((name, after)) = field else {
            return Err(format!("a brace without its counterpart in \"{text}\"; write it twice"));
        };
        if !literal.is_empty() {
            pieces.push(TextPiece::Literal(std::mem::take(&mut literal)));
        }
        pieces.push(piece(name)?);
        rest = after;
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        pieces.push(TextPiece::Literal(literal));
    }
    Ok(pieces)
}

fn piece(name: &str) -> Result<TextPiece, String> {
    if let Some(added) = name.strip_prefix(ADDED).filter(|added| !added.is_empty()) {
        return Ok(TextPiece::Added(added.to_owned()));
    }
    if let Some((_, field)) = FIELDS.iter().find(|(known, _)| *known == name) {
        return Ok(TextPiece::Field(*field));
    }
    let known: Vec<&str> = FIELDS.iter().map(|(name, _)| *name).collect();
    Err(format!("unknown field \"{name}\"; {}", hint(name, &known)))
}

impl TextPiece {
    /// Appends it to a line.
    pub fn write(&self, record: (&Opening<'_>, &Closing<'_>), at: &Moment, line: &mut Vec<u8>) {
        match self {
            TextPiece::Literal(text) => line.extend_from_slice(text.as_bytes()),
            TextPiece::Field(field) => match shown(*field, record) {
                Shown::Nothing => line.push(b'-'),
                Shown::Text(text) => push_text(line, text),
                shown => push(line, &shown, at),
            },
            TextPiece::Added(name) => {
                let mut added = request_record::fields(record.1.fields);
                match added.find(|(key, _)| *key == name.as_bytes()) {
                    None | Some((_, LogValue::Text(b""))) => line.push(b'-'),
                    Some((_, LogValue::Text(text) | LogValue::Number(text))) => {
                        push_text(line, text);
                    }
                    Some((_, LogValue::Boolean(value))) => {
                        line.extend_from_slice(boolean(value));
                    }
                }
            }
        }
    }
}
