//! A place in a script's text: white space, comments, words and numbers.

use super::Fault;

/// Most that a message quotes of what it found.
const QUOTE_MAX: usize = 24;

#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    file: &'a str,
    text: &'a str,
    pub at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(file: &'a str, text: &'a str) -> Self {
        Self { file, text, at: 0 }
    }

    pub fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    pub fn line(&self) -> usize {
        self.text[..self.at].matches('\n').count() + 1
    }

    /// What was found here instead of `expected`.
    pub fn fault(&self, expected: impl Into<String>) -> Fault {
        let rest = self.rest();
        let line = rest.lines().next().unwrap_or_default().trim_end();
        let quoted: String = line.chars().take(QUOTE_MAX).collect();
        let found = match (rest.is_empty(), quoted.is_empty()) {
            (true, _) => "the end".to_owned(),
            (_, true) => "the end of the line".to_owned(),
            _ => format!("`{quoted}`"),
        };
        Fault { file: self.file.to_owned(), line: self.line(), expected: expected.into(), found }
    }

    /// Skips white space and comments.
    pub fn skip(&mut self) -> Result<(), Fault> {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            self.at += rest.len() - trimmed.len();
            if trimmed.starts_with("//") || trimmed.starts_with('#') {
                self.at += trimmed.find('\n').unwrap_or(trimmed.len());
            } else if trimmed.starts_with("/*") {
                let end = trimmed.find("*/").ok_or_else(|| self.fault("a comment that ends"))?;
                self.at += end + 2;
            } else {
                return Ok(());
            }
        }
    }

    pub fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Takes `token` if it is next, and what may be skipped after it.
    pub fn take(&mut self, token: &str) -> Result<bool, Fault> {
        if !self.rest().starts_with(token) {
            return Ok(false);
        }
        self.at += token.len();
        self.skip()?;
        Ok(true)
    }

    /// The same for a word, which must end there.
    pub fn take_word(&mut self, word: &str) -> Result<bool, Fault> {
        let after = self.rest().strip_prefix(word).map(|rest| rest.chars().next());
        match after {
            Some(next) if !next.is_some_and(is_word) => self.take(word),
            _ => Ok(false),
        }
    }

    pub fn need(&mut self, token: &str) -> Result<(), Fault> {
        if self.take(token)? { Ok(()) } else { Err(self.fault(format!("`{token}`"))) }
    }

    /// As many characters as fit, which may be none.
    pub fn run(&mut self, fits: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !fits(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    /// A word: letters, digits and `_`.
    pub fn word(&mut self, what: &str) -> Result<&'a str, Fault> {
        let before = self.clone();
        let word = self.run(is_word);
        if word.is_empty() || word.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(before.fault(what));
        }
        self.skip()?;
        Ok(word)
    }

    /// A whole number: decimal, or hexadecimal with `0x`, or octal with `0`.
    pub fn number(&mut self, what: &str) -> Result<i64, Fault> {
        let before = self.clone();
        let minus = self.peek() == Some('-');
        self.at += usize::from(minus);
        let digits = self.run(is_word);
        let parsed = match digits.strip_prefix("0x") {
            Some(hex) => i64::from_str_radix(hex, 16),
            None if digits.len() > 1 && digits.starts_with('0') => i64::from_str_radix(digits, 8),
            None => digits.parse(),
        };
        let Ok(number) = parsed else { return Err(before.fault(what)) };
        self.skip()?;
        Ok(if minus { -number } else { number })
    }

    /// A number that fits its type.
    pub fn small<T: TryFrom<i64>>(&mut self, what: &str) -> Result<T, Fault> {
        let before = self.clone();
        let number = self.number(what)?;
        T::try_from(number).map_err(|_| before.fault(format!("{what} that fits its field")))
    }
}

pub fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}
