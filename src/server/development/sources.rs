//! The files that the application has loaded, and where an error names them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Longer names are cut by Lua, which then shows their end (`LUA_IDSIZE`).
const LONGEST_NAME: usize = 59;

/// What is left of such a name.
const LEFT: usize = 56;

/// How many places in the application are shown of an error.
const MOST_PLACES: usize = 6;

/// How many lines around a place.
const AROUND: usize = 5;

/// Files by the names under which they were loaded.
#[derive(Debug, Default)]
pub struct Sources(Vec<(Vec<u8>, PathBuf)>);

/// A place in a file of the application, with the lines around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt {
    /// The name of the file, as Lua shows it.
    pub name: String,
    /// The number of the line, from 1.
    pub line: usize,
    /// Lines with their numbers.
    pub lines: Vec<(usize, String)>,
}

impl Sources {
    /// Adds a file by the name with which it is loaded. Returns its absolute path if it is new.
    pub fn add(&mut self, name: &[u8]) -> Option<PathBuf> {
        if self.0.iter().any(|(other, _)| other == name) {
            return None;
        }
        let path = std::path::absolute(Path::new(OsStr::from_bytes(name))).ok()?;
        self.0.push((name.to_owned(), path.clone()));
        Some(path)
    }

    /// The places that an error names, with its traceback, the innermost first. Only files of the application
    /// count: what an error says may come from a client.
    pub fn excerpts(&self, report: &[u8]) -> Vec<Excerpt> {
        let mut places: Vec<(&Path, usize)> = Vec::new();
        let mut excerpts = Vec::new();
        for text in report.split(|byte| *byte == b'\n') {
            let Some((shown, path, line)) = self.place(text) else { continue };
            if excerpts.len() == MOST_PLACES || places.contains(&(path, line)) {
                continue;
            }
            places.push((path, line));
            let Ok(content) = std::fs::read(path) else { continue };
            let name = String::from_utf8_lossy(shown).into_owned();
            let lines = around(&content, line);
            if !lines.is_empty() {
                excerpts.push(Excerpt { name, line, lines });
            }
        }
        excerpts
    }

    /// The first place that a line of text names: `file:line:`.
    fn place<'a>(&'a self, text: &[u8]) -> Option<(&'a [u8], &'a Path, usize)> {
        let found = self.0.iter().filter_map(|(name, path)| {
            let (prefix, rest): (&[u8], &[u8]) = match name.len() {
                0..=LONGEST_NAME => (b"", name),
                length => (b"...", &name[length - LEFT..]),
            };
            let shown = [prefix, rest, b":"].concat();
            let (at, line) = memchr::memmem::find_iter(text, &shown).find_map(|at| {
                let begins = text[..at].last().is_none_or(|byte| !is_of_path(*byte));
                Some((at, number(&text[at + shown.len()..]).filter(|_| begins)?))
            })?;
            Some((at, name.as_slice(), path.as_path(), line))
        });
        let (_, name, path, line) = found.min_by_key(|(at, ..)| *at)?;
        Some((name, path, line))
    }
}

/// Whether a name that is found after this byte is only the end of another one.
fn is_of_path(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/._-".contains(&byte) || byte >= 0x80
}

/// The number before a colon, or before the end of a message without one.
fn number(text: &[u8]) -> Option<usize> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let ends = text.get(digits).is_none_or(|byte| b":>".contains(byte));
    std::str::from_utf8(&text[..digits]).ok().filter(|_| ends)?.parse().ok()
}

fn around(content: &[u8], line: usize) -> Vec<(usize, String)> {
    let lines = content.split(|byte| *byte == b'\n').zip(1..);
    let near = lines.filter(|(_, number)| line.abs_diff(*number) <= AROUND);
    let last = content.iter().filter(|byte| **byte == b'\n').count();
    // What follows the last line end is no line.
    let near = near.filter(|(text, number)| !text.is_empty() || *number <= last);
    near.map(|(text, number)| (number, String::from_utf8_lossy(text).into_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_loaded_files_are_shown_with_their_lines_and_no_others() {
        let folder = std::env::temp_dir().join(format!("mb-sources-{}", std::process::id()));
        let deep = folder.join("a-folder-with-a-name-that-is-longer-than-what-lua-shows-of-it");
        std::fs::create_dir_all(&deep).unwrap();
        let text: String = (1..=20).map(|line| format!("line {line}\n")).collect();
        let name = |path: &Path| path.to_str().unwrap().to_owned();
        let (near, far) = (name(&folder.join("near.lua")), name(&deep.join("far.lua")));
        let secret = name(&folder.join("secret"));
        for path in [&near, &far, &secret] {
            std::fs::write(path, &text).unwrap();
        }
        let mut sources = Sources::default();
        assert_eq!(sources.add(near.as_bytes()), Some(PathBuf::from(&near)));
        assert_eq!(sources.add(near.as_bytes()), None);
        sources.add(far.as_bytes());
        let cut = &far[far.len() - LEFT..];
        let report = format!(
            "{near}:20: {secret}:3: oh\nstack traceback:\n\t[C]: in function 'error'\n\t\
             {near}:20: in upvalue\n\t...{cut}:2: in function <...{cut}:1>\n\tx{near}:3: in ?\n\t\
             {near}:99: in ?"
        );
        let found = sources.excerpts(report.as_bytes());
        let places: Vec<_> = found.iter().map(|it| (it.name.as_str(), it.line)).collect();
        assert_eq!(places, [(near.as_str(), 20), (far.as_str(), 2)]);
        let numbers: Vec<usize> = found[0].lines.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [15, 16, 17, 18, 19, 20]);
        assert_eq!(found[1].lines[1], (2, "line 2".to_owned()));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
