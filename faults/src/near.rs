//! The names that somebody may have meant.

/// So many are told.
const TOLD: usize = 3;

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// The names nearest to `name`, the nearest first, with commas between them.
pub fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let mut names: Vec<&str> = names.into_iter().collect();
    // Who knows how a name begins knows something of it.
    let begins_alike = |other: &str| name.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count() as i64;
    names.sort_by_key(|other| 2 * distance(name, other) as i64 - begins_alike(other));
    names.truncate(TOLD);
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_come_first() {
        assert_eq!((distance("kitten", "sitting"), distance("", "abc"), distance("a", "a")), (3, 3, 0));
        assert_eq!(
            nearest("wire.rx", ["timer.wake", "wire.tx.frame", "wire.rx.frame", "x"]),
            "wire.rx.frame, wire.tx.frame, x"
        );
    }
}
