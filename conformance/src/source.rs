//! The citations of a Rust source, and where they stand.

use anyhow::{Context, Result, ensure};

/// A citation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Citation {
    /// The text, as a path from the root: `docs/specs/rfc9293.txt`.
    pub text: String,
    /// The section's number.
    pub section: String,
    /// The words.
    pub quote: String,
    /// Which row of those with the same identifier.
    pub feature: Option<String>,
    /// The source, as a path from the root.
    pub file: String,
    /// The line of the `//=`, from one.
    pub line: usize,
    /// The item that it stands in or in front of.
    pub item: String,
    /// It stands in a test.
    pub test: bool,
}

/// A citation while its lines are read.
#[derive(Default)]
struct Draft {
    line: usize,
    text: String,
    section: String,
    quote: String,
    feature: Option<String>,
    test: bool,
}

/// Reads all citations of a source.
///
/// # Errors
/// What is wrong with one, and where: an unknown key, no quote, a test that is not a test.
pub fn citations(file: &str, source: &str) -> Result<Vec<Citation>> {
    let lines: Vec<&str> = source.lines().collect();
    let mut found = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        if comment(lines[at]).is_none() {
            at += 1;
            continue;
        }
        let begin = at;
        while at < lines.len() && comment(lines[at]).is_some() {
            at += 1;
        }
        let place = || format!("{file}:{}", begin + 1);
        for draft in drafts(&lines[begin..at], begin).with_context(place)? {
            found.push(settle(file, &lines, at, draft).with_context(place)?);
        }
    }
    Ok(found)
}

/// What follows `//=` or `//#`, with its mark.
fn comment(line: &str) -> Option<(char, &str)> {
    let rest = line.trim_start().strip_prefix("//")?;
    let mark = rest.chars().next().filter(|c| matches!(c, '=' | '#'))?;
    Some((mark, rest[1..].trim()))
}

fn drafts(block: &[&str], first: usize) -> Result<Vec<Draft>> {
    let mut drafts: Vec<Draft> = Vec::new();
    for (i, line) in block.iter().enumerate() {
        let Some((mark, words)) = comment(line) else { continue };
        if mark == '='
            && let Some((text, section)) = words.split_once("#section-")
        {
            drafts.push(Draft { line: first + i + 1, text: text.into(), section: section.into(), ..Draft::default() });
            continue;
        }
        let draft = drafts.last_mut().context("neither text nor section is named")?;
        match (mark, words.split_once('=')) {
            ('#', _) => {
                draft.quote.push_str(words);
                draft.quote.push(' ');
            }
            (_, Some(("type", "test"))) => draft.test = true,
            (_, Some(("feature", feature))) => draft.feature = Some(feature.into()),
            _ => anyhow::bail!("what is {words:?}?"),
        }
    }
    for draft in &drafts {
        ensure!(!draft.quote.trim().is_empty(), "section {} without a quote", draft.section);
    }
    Ok(drafts)
}

fn settle(file: &str, lines: &[&str], after: usize, draft: Draft) -> Result<Citation> {
    let (item, item_line) = item_at(lines, after).context("nothing stands below the citation")?;
    if draft.test {
        let is_attribute = |l: &&&str| l.trim_start().starts_with("#[") || l.trim_start().starts_with("//");
        let attributes: Vec<_> = lines[..item_line].iter().rev().take_while(is_attribute).map(|l| l.trim()).collect();
        ensure!(attributes.contains(&"#[test]"), "{item} is not a test");
        ensure!(!attributes.iter().any(|a| a.starts_with("#[ignore")), "{item} is not run");
    }
    let Draft { line, text, section, quote, feature, test } = draft;
    Ok(Citation { text, section, quote: quote.trim().into(), feature, file: file.into(), line, item, test })
}

/// The item that begins on the next line of code, or else the one around it: its name and its line.
fn item_at(lines: &[&str], after: usize) -> Option<(String, usize)> {
    let is_code = |l: &str| {
        let l = l.trim_start();
        !l.is_empty() && !l.starts_with("//") && !l.starts_with("#[")
    };
    let next = (after..lines.len()).find(|i| is_code(lines[*i]))?;
    if let Some(name) = item_name(lines[next]) {
        return Some((name, next));
    }
    let depth = indent(lines[next]);
    let around =
        (0..next).rev().find(|i| is_code(lines[*i]) && indent(lines[*i]) < depth && item_name(lines[*i]).is_some())?;
    item_name(lines[around]).map(|name| (name, around))
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The name of the item that a line begins.
fn item_name(line: &str) -> Option<String> {
    let mut words = line.split_whitespace().peekable();
    while words.next_if(|w| w.starts_with("pub") || matches!(*w, "async" | "unsafe")).is_some() {}
    let mut kind = words.next()?;
    if kind == "const" && words.peek() == Some(&"fn") {
        kind = words.next()?;
    }
    if kind == "impl" || kind.starts_with("impl<") {
        return Some(line.trim().trim_end_matches('{').trim_end().to_owned());
    }
    if !matches!(kind, "fn" | "struct" | "enum" | "const" | "static" | "trait" | "type" | "mod" | "union") {
        return None;
    }
    let name: String = words.next()?.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = r#"
//= docs/specs/a.txt#section-1
//# A rule
//# in two lines.
/// Does it.
pub(crate) fn does() {
    if true {
        //= docs/specs/a.txt#section-2.1
        //= feature=IPv4
        //# Another.
        let x = 1;
    }
}

//= docs/specs/a.txt#section-3
//# A fourth.
impl Rule for Thing {
    fn f() {}
}

//= docs/specs/a.txt#section-1
//= type=test
//# A rule
#[test]
fn it_does() {
    //= docs/specs/b.txt#section-9
    //= type=test
    //# A third.
    does();
}
"#;

    #[test]
    fn citations_and_where_they_stand() {
        let found = citations("x.rs", SOURCE).unwrap();
        let short: Vec<_> =
            found.iter().map(|c| (c.line, c.section.as_str(), c.quote.as_str(), c.item.as_str(), c.test)).collect();
        assert_eq!(
            short,
            [
                (2, "1", "A rule in two lines.", "does", false),
                (8, "2.1", "Another.", "does", false),
                (15, "3", "A fourth.", "impl Rule for Thing", false),
                (21, "1", "A rule", "it_does", true),
                (26, "9", "A third.", "it_does", true),
            ]
        );
        assert_eq!((found[1].feature.as_deref(), found[4].text.as_str()), (Some("IPv4"), "docs/specs/b.txt"));
    }

    #[test]
    fn what_is_no_citation_is_an_error() {
        for bad in [
            "//# a quote of nothing\nfn f() {}",
            "//= a.txt#section-1\nfn f() {}",
            "//= a.txt#section-1\n//= colour=red\n//# words\nfn f() {}",
            "//= a.txt#section-1\n//# words",
            "//= a.txt#section-1\n//= type=test\n//# words\nfn f() {}",
            "//= a.txt#section-1\n//= type=test\n//# words\n#[test]\n#[ignore]\nfn f() {}",
        ] {
            assert!(citations("x.rs", bad).is_err(), "{bad}");
        }
    }
}
