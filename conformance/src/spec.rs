//! The text of an RFC, by section.
//!
//! A heading stands in the first column and begins with the section's number; a table of contents is indented, so it has none. A
//! section's text ends at the next heading of any level: a quote stands where the RFC says it, not somewhere below.

use std::collections::BTreeMap;

/// The text of one RFC, ready to be searched.
#[derive(Debug)]
pub struct Spec {
    /// Section number to its text, [`folded`].
    sections: BTreeMap<String, String>,
}

/// A text without white space: what is left does not depend on where lines break.
pub fn folded(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).collect()
}

/// The number in a heading: `3.10.7.4.  Other States`, `5.3 Basic PAWS`, `Appendix B.  …` (as `B`).
fn heading(line: &str) -> Option<String> {
    if let Some(rest) = line.strip_prefix("Appendix ") {
        return rest.chars().next().filter(char::is_ascii_uppercase).map(String::from);
    }
    let (number, title) = line.split_once(' ')?;
    let number = number.strip_suffix('.').unwrap_or(number);
    let mut parts = number.split('.');
    let first = parts.next()?;
    let is_number = |part: &str| !part.is_empty() && part.len() <= 2 && part.bytes().all(|b| b.is_ascii_digit());
    let is_letter = first.len() == 1 && first.bytes().all(|b| b.is_ascii_uppercase()) && number.len() > 1;
    let is_title = title.trim_start().starts_with(|c: char| c.is_ascii_alphanumeric() || c == '"');
    ((is_number(first) || is_letter) && parts.all(is_number) && is_title).then(|| number.to_owned())
}

/// Whether a line is the head or the foot of a page.
fn is_page_edge(line: &str) -> bool {
    let foot = line.ends_with(']') && line.contains("[Page ");
    let head = line.starts_with("RFC ") && line.len() > 60 && line.contains("  ");
    foot || head
}

impl Spec {
    /// Reads the plain text of an RFC.
    pub fn parse(text: &str) -> Self {
        let mut sections: BTreeMap<String, String> = BTreeMap::new();
        let mut section = String::new();
        for line in text.lines() {
            let line = line.trim_end().trim_start_matches('\u{c}');
            if is_page_edge(line) {
                continue;
            }
            if let Some(number) = heading(line) {
                section = number;
            }
            // A quotation of another RFC has a bar at the margin.
            let line = line.trim_start();
            let line = line.strip_prefix("| ").unwrap_or(line);
            sections.entry(section.clone()).or_default().push_str(&folded(line));
        }
        Self { sections }
    }

    /// Whether a section has these words; `None` if there is no such section.
    pub fn has(&self, section: &str, quote: &str) -> Option<bool> {
        self.sections.get(section).map(|text| text.contains(&folded(quote)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
   1.  Contents .............................................3

1.  Beginning

   The first of two-
   part words.

Somebody                 Standards Track                    [Page 1]
\u{c}
RFC 9999               About Something                 November 2026

   Still the first.

1.1.  Inside

   A rule | with a bar.
   | quoted
   | words

Appendix B.  Table

   Cells.
";

    #[test]
    fn quotes_are_found_in_their_section_over_breaks_of_lines_and_pages() {
        let spec = Spec::parse(TEXT);
        assert_eq!(spec.has("1", "two-part words. Still  the\nfirst"), Some(true));
        assert_eq!(spec.has("1", "A rule"), Some(false), "a section ends where its first subsection begins");
        assert_eq!(spec.has("1.1", "A rule | with a bar. quoted words"), Some(true));
        assert_eq!(spec.has("B", "Cells"), Some(true));
        assert_eq!(spec.has("2", "Cells"), None);
    }

    #[test]
    fn headings() {
        for (line, number) in [
            ("3.10.7.4.  OTHER STATES", Some("3.10.7.4")),
            ("5.3.  Basic PAWS Algorithm", Some("5.3")),
            ("A.1.  \"Notes\"", Some("A.1")),
            ("1988 was a year", None),
            ("A new beginning", None),
            ("3.  ", None),
            ("   3.  Indented", None),
        ] {
            assert_eq!(heading(line).as_deref(), number, "{line}");
        }
    }
}
