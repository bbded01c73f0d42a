//! On which directory entries it depends what is found at a path.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

/// As many symbolic links as the kernel follows.
const LINKS: usize = 40;

/// All entries, each a directory and a name, that the kernel looks up on the way to an absolute path, through
/// symbolic links. Ends with one that does not exist, if there is one.
pub fn entries(path: &Path) -> Vec<(PathBuf, OsString)> {
    let mut entries = Vec::new();
    let mut place = PathBuf::from("/");
    let mut names: VecDeque<OsString> = names(path).collect();
    let mut links = 0;
    while let Some(name) = names.pop_front() {
        if name == ".." {
            place.pop();
            continue;
        }
        let there = place.join(&name);
        entries.push((place.clone(), name));
        let target = std::fs::read_link(&there).ok().filter(|_| links < LINKS);
        if let Some(target) = target {
            links += 1;
            if target.is_absolute() {
                place = PathBuf::from("/");
            }
            let rest = std::mem::take(&mut names);
            names = self::names(&target).chain(rest).collect();
        } else if there.symlink_metadata().is_ok() {
            place = there;
        } else {
            break;
        }
    }
    entries
}

fn names(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsStr::new("..").to_owned()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_leads_through_symbolic_links_and_ends_where_nothing_is() {
        let folder = std::env::temp_dir().join(format!("moonbridge-trail-{}", std::process::id()));
        let releases = folder.join("releases/1");
        std::fs::create_dir_all(&releases).unwrap();
        std::fs::write(releases.join("app.lua"), "").unwrap();
        std::os::unix::fs::symlink("releases/../releases/1", folder.join("current")).unwrap();
        let folder = std::fs::canonicalize(&folder).unwrap();
        let shown = |path: &str| -> Vec<String> {
            let text = |path: &Path| path.display().to_string();
            let entries = entries(&folder.join(path)).into_iter();
            let inside = entries.filter(|(place, _)| place.starts_with(&folder));
            inside
                .map(|(place, name)| text(&place.join(name)).replace(&text(&folder), ""))
                .collect()
        };
        let way = ["/current", "/releases", "/releases", "/releases/1", "/releases/1/app.lua"];
        assert_eq!(shown("current/app.lua"), way);
        assert_eq!(shown("current/views/a"), [&way[..4], &["/releases/1/views"]].concat());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
