//! The list of the most common passwords, which no account may choose.

/// The list: one lower-case password per line, sorted by bytes, without repeats.
///
/// Passwords that are too short or too long to be chosen are left out. `common_passwords.md` names
/// the sources.
const LIST: &str = include_str!("common_passwords.txt");

/// Whether a password is on the list, in any case.
///
/// A binary search in the text itself: about fifteen comparisons, and no memory beyond the
/// binary's.
pub(super) fn is_common(password: &str) -> bool {
    let mut rest = LIST;
    while !rest.is_empty() {
        let middle = rest.floor_char_boundary(rest.len() / 2);
        let (before, after) = rest.split_at(middle);
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        let end = after.find('\n').map_or(rest.len(), |at| middle + at);
        let line = rest.get(start..end).unwrap_or_default();
        // The order of characters is that of their bytes in UTF-8.
        match line.chars().cmp(password.chars().flat_map(char::to_lowercase)) {
            std::cmp::Ordering::Equal => return true,
            std::cmp::Ordering::Less => rest = rest.get(end + 1..).unwrap_or_default(),
            std::cmp::Ordering::Greater => rest = rest.get(..start).unwrap_or_default(),
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_every_entry_is_found() {
        let lines: Vec<&str> = LIST.lines().collect();
        assert!(lines.len() >= 10_000, "{}", lines.len());
        assert!(lines.is_sorted_by(|a, b| a.as_bytes() < b.as_bytes()));
        for line in &lines {
            assert!(is_common(line), "{line}");
        }
        let (first, last) = (lines[0], lines[lines.len() - 1]);
        for other in [
            "",
            "!",
            "~~~~",
            "\u{10ffff}",
            &first[1..],
            &format!("{last}x"),
            "correct horse battery",
        ] {
            assert_eq!(is_common(other), lines.contains(&other), "{other}");
        }
    }
}
