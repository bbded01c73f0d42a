//! A response that is made of a file or a folder: its status, its header lines, and its body.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::SystemTime;

use super::answer::{AskingFields, FileAnswer};
use super::byteranges;
use super::folder::Representation;
use super::opened::{OpenedFile, READ_AT_ONCE};
use crate::http::wire::disposition;
use crate::http::wire::escape::encode_path;
use crate::http::wire::header_lines::push_header;
use crate::sys::os::{file_transfer, random};

/// What is sent.
#[derive(Debug, Default)]
pub struct FileReply {
    /// Code and reason.
    pub status: &'static str,
    /// Header lines, without Content-Length.
    pub lines: Vec<u8>,
    /// Content-Length, unless there is none.
    pub length: Option<u64>,
    /// The body.
    pub body: ReplyBody,
}

/// The body of such a response.
#[derive(Debug, Default)]
pub enum ReplyBody {
    /// None.
    #[default]
    None,
    /// One that was read into memory.
    Bytes(Vec<u8>),
    /// So many bytes of a file from its position on.
    File(OwnedFd, u64),
}

/// What the application says of a file.
#[derive(Debug, Default)]
pub struct FileOptions {
    /// Instead of the one that belongs to the name.
    pub media_type: Option<Vec<u8>>,
    /// The name under which the client is to save it.
    pub attachment: Option<Vec<u8>>,
    /// Cache-Control.
    pub cache_control: Option<Vec<u8>>,
    /// It is sent with another status, whatever the request asks for.
    pub is_plain: bool,
}

impl FileReply {
    /// What a request with this method and these fields gets of a file that begins, for it, at `position`.
    ///
    /// # Errors
    /// What the system reports; `UnexpectedEof` if the file has become shorter.
    pub fn to<'a>(
        method: &[u8],
        fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        representation: Representation,
        position: u64,
        options: &FileOptions,
    ) -> io::Result<FileReply> {
        let Representation { opened, media_type, coding, varies } = representation;
        let size = opened.size.saturating_sub(position);
        let asking = if options.is_plain { None } else { AskingFields::among(fields) };
        let decided = asking.map_or(FileAnswer::Whole, |asking| {
            FileAnswer::to(&asking.asked(method), &opened.validators(), size, SystemTime::now())
        });
        let media_type = options.media_type.as_deref().unwrap_or(media_type.as_bytes());

        let mut lines = Vec::with_capacity(512);
        if !options.is_plain {
            lines.extend_from_slice(opened.lines());
        }
        let mut add = |name: &str, value: &[u8]| push_header(&mut lines, name.as_bytes(), value);
        if varies {
            add("Vary", b"Accept-Encoding");
        }
        if let Some(value) = &options.cache_control {
            add("Cache-Control", value);
        }
        if matches!(decided, FileAnswer::Whole | FileAnswer::Part(_) | FileAnswer::Parts(_)) {
            if let Some(coding) = coding {
                add("Content-Encoding", coding.as_bytes());
            }
            if let Some(name) = &options.attachment {
                add("Content-Disposition", disposition::attachment(name).as_bytes());
            }
        }
        let is_head = method == b"HEAD";
        let (length, body) = match &decided {
            FileAnswer::Whole => {
                add("Content-Type", media_type);
                (Some(size), part(opened, position, size, is_head)?)
            }
            FileAnswer::Part(range) => {
                add("Content-Range", byteranges::content_range(range, size).as_bytes());
                add("Content-Type", media_type);
                (Some(range.length), part(opened, position + range.start, range.length, is_head)?)
            }
            FileAnswer::Parts(ranges) => {
                let boundary: String =
                    random::bytes::<12>().iter().map(|byte| format!("{byte:02x}")).collect();
                let kind = String::from_utf8_lossy(media_type);
                let file = opened.file.as_fd();
                let body = byteranges::body(file, position, ranges, size, &kind, &boundary)?;
                add("Content-Type", byteranges::media_type(&boundary).as_bytes());
                (Some(body.len() as u64), ReplyBody::Bytes(body))
            }
            FileAnswer::NotModified => (None, ReplyBody::None),
            FileAnswer::PreconditionFailed => (Some(0), ReplyBody::None),
            FileAnswer::Unsatisfiable => {
                add("Content-Range", format!("bytes */{size}").as_bytes());
                (Some(0), ReplyBody::None)
            }
        };
        Ok(FileReply { status: decided.status(), lines, length, body })
    }

    /// For a folder whose path lacks the slash at its end (pure). The location is relative to the path of the request,
    /// which may begin elsewhere than the folder.
    pub fn with_slash(name: &[u8], query: &[u8]) -> FileReply {
        let location = [b"./", &encode_path(name)[..], b"/", query].concat();
        let mut lines = Vec::new();
        push_header(&mut lines, b"Location", &location);
        let status = "301 Moved Permanently";
        FileReply { status, lines, length: Some(0), body: ReplyBody::None }
    }

    /// A page that lists a folder (pure).
    pub fn listing(page: String, options: &FileOptions) -> FileReply {
        let mut lines = Vec::new();
        push_header(&mut lines, b"Content-Type", b"text/html; charset=utf-8");
        if let Some(value) = &options.cache_control {
            push_header(&mut lines, b"Cache-Control", value);
        }
        let (length, body) = (Some(page.len() as u64), ReplyBody::Bytes(page.into_bytes()));
        FileReply { status: "200 OK", lines, length, body }
    }
}

/// So many bytes of a file from a position on.
fn part(opened: OpenedFile, position: u64, length: u64, is_head: bool) -> io::Result<ReplyBody> {
    if is_head || length == 0 {
        return Ok(ReplyBody::None);
    }
    if length <= READ_AT_ONCE {
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        file_transfer::read_at(opened.file.as_fd(), position, &mut bytes)?;
        return Ok(ReplyBody::Bytes(bytes));
    }
    // Only small files are shared, so nobody else has this one.
    let file = Rc::try_unwrap(opened.file).map_err(|_| io::ErrorKind::ResourceBusy)?;
    if position > 0 {
        file_transfer::seek(file.as_fd(), position)?;
    }
    Ok(ReplyBody::File(file, length))
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::io::Write;

    use super::*;
    use crate::http::files::opened::FileKind;

    /// A file of so many bytes that nobody else can find.
    fn representation(size: usize) -> Representation {
        let mut file = tempfile();
        file.write_all(&vec![b'x'; size]).unwrap();
        let Ok(FileKind::File(opened)) = FileKind::of(file.into(), "") else { panic!("no file") };
        Representation::plain(opened, Cow::Borrowed("text/plain"))
    }

    fn tempfile() -> std::fs::File {
        let name = format!("moonbridge-reply-{:?}", random::bytes::<8>());
        let path = std::env::temp_dir().join(name);
        let file = std::fs::File::create_new(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        file
    }

    fn reply(method: &[u8], fields: &[(&str, &str)], size: usize, position: u64) -> FileReply {
        let fields = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        FileReply::to(method, fields, representation(size), position, &FileOptions::default())
            .unwrap()
    }

    fn has(reply: &FileReply, line: &str) -> bool {
        String::from_utf8_lossy(&reply.lines).lines().any(|known| known == line)
    }

    #[test]
    fn a_head_has_the_length_and_no_body() {
        let reply = reply(b"HEAD", &[], 1000, 10);
        assert_eq!((reply.status, reply.length), ("200 OK", Some(990)));
        assert!(matches!(reply.body, ReplyBody::None) && has(&reply, "Content-Type: text/plain"));
    }

    #[test]
    fn large_parts_are_sent_from_the_file() {
        let size = 2 * READ_AT_ONCE;
        let range = format!("bytes={}-", 100);
        let reply = reply(b"GET", &[("Range", &range)], size as usize, 0);
        assert_eq!((reply.status, reply.length), ("206 Partial Content", Some(size - 100)));
        assert!(has(&reply, &format!("Content-Range: bytes 100-{}/{size}", size - 1)));
        let ReplyBody::File(file, length) = reply.body else { panic!("it is in memory") };
        assert_eq!((file_transfer::position(file.as_fd()).unwrap(), length), (100, size - 100));
    }

    #[test]
    fn what_cannot_be_satisfied_tells_the_size() {
        let reply = reply(b"GET", &[("range", "bytes=9-")], 5, 0);
        assert_eq!((reply.status, reply.length), ("416 Range Not Satisfiable", Some(0)));
        assert!(has(&reply, "Content-Range: bytes */5"));
    }

    #[test]
    fn a_folder_is_redirected_to_below_its_parent() {
        let reply = FileReply::with_slash(b"a b", b"?c");
        assert!(has(&reply, "Location: ./a%20b/?c"));
    }
}
