//! The page that shows an error to a developer, as HTML or as plain text (pure).

use super::sources::Excerpt;
use crate::http::wire::escape::encode_html;

/// How the page looks. The headers forbid everything else ([`POLICY`]).
const STYLE: &str = "body{font:16px/1.5 sans-serif;margin:2em auto;max-width:60em;padding:0 1em;\
    color:#222;background:#fff}h1{font-size:1.2em;color:#a00;white-space:pre-wrap}h2{font-size:1em}\
    pre{background:#f4f4f4;padding:.7em;overflow:auto;line-height:1.35}b{background:#fdd}\
    @media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}h1{color:#f88}\
    pre{background:#262626}b{background:#622}}";

/// Nothing on the page may load or run anything, whatever an error says.
pub const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// An error to be shown.
#[derive(Debug)]
pub struct ShownError<'a> {
    /// What was being done, e.g. a method and a target.
    pub task: &'a str,
    /// The message and, after it, the traceback.
    pub report: &'a str,
    /// Places in the application, the innermost first.
    pub excerpts: &'a [Excerpt],
}

impl ShownError<'_> {
    /// The message, and the traceback.
    fn parts(&self) -> (&str, &str) {
        let parts = self.report.split_once("\nstack traceback:\n");
        parts.unwrap_or((self.report, ""))
    }

    /// As HTML, in UTF-8.
    pub fn html(&self) -> String {
        let (message, traceback) = self.parts();
        let [task, message, traceback] = [self.task, message, traceback].map(escaped);
        let mut page = format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Error: {task}</title>\
             <style>{STYLE}</style></head><body>\n<p>{task}</p>\n<h1>{message}</h1>\n"
        );
        for Excerpt { name, line, lines } in self.excerpts {
            page.push_str(&format!("<h2>{}:{line}</h2>\n<pre>", escaped(name)));
            for (number, text) in lines {
                let text = escaped(&shown(number, text));
                page.push_str(&match number == line {
                    true => format!("<b>{text}</b>\n"),
                    false => format!("{text}\n"),
                });
            }
            page.push_str("</pre>\n");
        }
        if !traceback.is_empty() {
            page.push_str(&format!("<h2>Traceback</h2>\n<pre>{traceback}</pre>\n"));
        }
        page.push_str("</body></html>\n");
        page
    }

    /// As plain text.
    pub fn text(&self) -> String {
        let (message, traceback) = self.parts();
        let mut page = format!("500 Internal Server Error\n\n{}\n\n{message}\n", self.task);
        for Excerpt { name, line, lines } in self.excerpts {
            page.push_str(&format!("\n{name}:{line}\n"));
            for (number, text) in lines {
                let mark = if number == line { ">" } else { " " };
                page.push_str(&format!("{mark} {}\n", shown(number, text)));
            }
        }
        if !traceback.is_empty() {
            page.push_str(&format!("\nTraceback\n{traceback}\n"));
        }
        page
    }
}

fn shown(number: &usize, text: &str) -> String {
    format!("{number:5}  {}", text.trim_end())
}

fn escaped(text: &str) -> String {
    String::from_utf8_lossy(&encode_html(text.as_bytes())).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_shows_task_message_source_and_traceback_and_escapes_them() {
        let excerpts = [Excerpt {
            name: "<app>.lua".into(),
            line: 2,
            lines: vec![(1, "a < b".into()), (2, "error '</pre>'".into())],
        }];
        let report = "<app>.lua:2: <script>\nstack traceback:\n\t[C]: in <x>";
        let failure = ShownError { task: "GET /?<b>", report, excerpts: &excerpts };
        let html = failure.html();
        for part in [
            "<title>Error: GET /?&lt;b&gt;</title>",
            "<h1>&lt;app&gt;.lua:2: &lt;script&gt;</h1>",
            "<h2>&lt;app&gt;.lua:2</h2>\n<pre>    1  a &lt; b\n<b>    2  error",
            "<pre>\t[C]: in &lt;x&gt;</pre>",
        ] {
            assert!(html.contains(part), "{part} {html}");
        }
        assert!(!html.contains("<script>") && html.matches("</pre>").count() == 2);
        assert_eq!(
            failure.text(),
            "500 Internal Server Error\n\nGET /?<b>\n\n<app>.lua:2: <script>\n\n<app>.lua:2\n\
             \x20     1  a < b\n>     2  error '</pre>'\n\nTraceback\n\t[C]: in <x>\n"
        );
    }

    #[test]
    fn an_error_without_a_traceback_is_shown_too() {
        let failure = ShownError { task: "GET /", report: "oh", excerpts: &[] };
        assert_eq!(failure.text(), "500 Internal Server Error\n\nGET /\n\noh\n");
        assert!(!failure.html().contains("Traceback"));
    }
}
