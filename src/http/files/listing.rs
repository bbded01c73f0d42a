//! The page that lists a folder.

use std::fmt::Write;
use std::io;
use std::os::fd::OwnedFd;

use nix::dir::{Dir, Type};
use nix::errno::Errno;

use crate::http::wire::escape::{encode_html, encode_path};

/// More names than this are left out.
const MOST_NAMES: usize = 10_000;

/// The names in a folder, with a slash after those of folders, sorted; those with a dot in front only if they are served.
///
/// # Errors
/// What the system reports.
pub fn names(folder: OwnedFd, serves_hidden: bool) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::from_fd(folder)?.iter() {
        let entry = entry.map_err(|errno: Errno| io::Error::from(errno))?;
        let mut name = entry.file_name().to_bytes().to_vec();
        let is_hidden = name.first() == Some(&b'.');
        if matches!(&name[..], b"." | b"..") || is_hidden && !serves_hidden {
            continue;
        }
        match entry.file_type() {
            Some(Type::Directory) => name.push(b'/'),
            Some(Type::File | Type::Symlink) | None => {}
            Some(_) => continue,
        }
        names.push(name);
        if names.len() == MOST_NAMES {
            break;
        }
    }
    names.sort();
    Ok(names)
}

/// The page (pure). `title` is the folder's path as the request has it, decoded.
pub fn page(title: &[u8], names: &[Vec<u8>], has_parent: bool) -> String {
    let html = |text: &[u8]| String::from_utf8_lossy(&encode_html(text)).into_owned();
    let title = html(title);
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n\
         <style>body {{ font: 1rem/1.6 system-ui, sans-serif; margin: 2rem auto; max-width: 50rem; padding: 0 1rem }}\
         </style>\n</head>\n<body>\n<h1>{title}</h1>\n<ul>\n"
    );
    if has_parent {
        page.push_str("<li><a href=\"../\">../</a></li>\n");
    }
    for name in names {
        // After "./", a colon in a name is not the end of a scheme.
        let href = html(&encode_path(name));
        let _ = writeln!(page, "<li><a href=\"./{href}\">{}</a></li>", html(name));
    }
    page.push_str("</ul>\n</body>\n</html>\n");
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_text_and_not_markup() {
        let names = [b"a<b>&.txt".to_vec(), b"c: d/".to_vec(), b"\xff".to_vec()];
        let page = page(b"/x<y/", &names, true);
        assert!(page.contains("<h1>/x&lt;y/</h1>"));
        assert!(page.contains("<a href=\"./a%3cb%3e&amp;.txt\">a&lt;b&gt;&amp;.txt</a>"));
        assert!(page.contains("<a href=\"./c:%20d/\">c: d/</a>"));
        assert!(page.contains("<a href=\"./%ff\">\u{fffd}</a>"));
        assert!(page.contains("<a href=\"../\">"));
    }
}
