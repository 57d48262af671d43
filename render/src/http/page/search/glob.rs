//! Globs over whole names: `*`, `**`, `?`, `[a-z]`, `[!a]`, `{a,b}`. All but `**` stay within a node.

use memchr::memchr;

/// Whether `glob` matches the whole of `name`.
pub(in crate::http::page) fn fits(glob: &str, name: &str) -> bool {
    let globs = alternatives(glob);
    globs
        .iter()
        .any(|glob| matches(glob.as_bytes(), name.as_bytes()))
}

/// The globs without braces that `glob` stands for; at most 64.
pub(super) fn alternatives(glob: &str) -> Vec<String> {
    let mut done = Vec::new();
    let mut left = vec![glob.to_owned()];
    while let Some(one) = left.pop() {
        let open = one.find('{');
        let close = open.and_then(|open| one[open..].find('}').map(|length| open + length));
        match (open, close) {
            (Some(open), Some(close)) if done.len() + left.len() < 64 => {
                for part in one[open + 1..close].split(',') {
                    left.push(format!("{}{part}{}", &one[..open], &one[close + 1..]));
                }
            }
            _ => done.push(one),
        }
    }
    done
}

/// Whether `glob` (`*`, `**`, `?`, `[a-z]`, `[!a]`) matches the whole of `name`. `*` and `?` stay
/// within a node.
pub(super) fn matches(glob: &[u8], name: &[u8]) -> bool {
    let (mut g, mut n) = (0, 0);
    // Where to go on after a star took one more character: glob, name, whether it crosses dots.
    let mut again: Option<(usize, usize, bool)> = None;
    // The innermost `**`, which may go on when an inner star cannot.
    let mut outer: Option<(usize, usize, bool)> = None;
    loop {
        if glob.get(g) == Some(&b'*') {
            let is_deep = glob.get(g + 1) == Some(&b'*');
            g += if is_deep { 2 } else { 1 };
            again = Some((g, n, is_deep));
            if is_deep {
                outer = again;
            }
            continue;
        }
        match (glob.get(g), name.get(n)) {
            (None, None) => return true,
            (Some(_), Some(&c)) => {
                if let Some(next) = one(glob, g, c) {
                    (g, n) = (next, n + 1);
                    continue;
                }
            }
            _ => {}
        }
        loop {
            let Some((star, at, is_deep)) = again else {
                return false;
            };
            match name.get(at) {
                Some(&c) if is_deep || c != b'.' => {
                    again = Some((star, at + 1, is_deep));
                    if is_deep {
                        outer = again;
                    }
                    (g, n) = (star, at + 1);
                    break;
                }
                _ if is_deep => return false,
                _ => again = outer,
            }
        }
    }
}

/// The position after the part of `glob` at `g` if that matches `c`.
fn one(glob: &[u8], g: usize, c: u8) -> Option<usize> {
    match glob.get(g)? {
        b'?' => (c != b'.').then_some(g + 1),
        b'[' => {
            let close = g + 2 + memchr(b']', glob.get(g + 2..)?)?;
            let (is_not, set) = match glob.get(g + 1)? {
                b'!' => (true, &glob[g + 2..close]),
                _ => (false, &glob[g + 1..close]),
            };
            let mut i = 0;
            let mut has = false;
            while i < set.len() {
                if let (Some(b'-'), Some(last)) = (set.get(i + 1), set.get(i + 2)) {
                    has |= (set[i]..=*last).contains(&c);
                    i += 3;
                } else {
                    has |= set[i] == c;
                    i += 1;
                }
            }
            (has != is_not).then_some(close + 1)
        }
        plain => (*plain == c).then_some(g + 1),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn globs_match_whole_names_node_by_node() {
        for (glob, name, fits) in [
            ("a.*.c", "a.b.c", true),
            ("a.*.c", "a.b.b.c", false),
            ("a.**.c", "a.b.b.c", true),
            ("**.c", "a.b.b.c", true),
            ("**b*", "a.b.b", true),
            ("a?c", "abc", true),
            ("a?c", "a.c", false),
            ("a[0-9]", "a7", true),
            ("a[!0-9]", "a7", false),
            ("a[", "a[", false),
            ("*", "a", true),
            ("*", "a.b", false),
            ("a.{b,c}.d", "a.c.d", true),
            ("*.*x", "a.xyx", true),
        ] {
            assert_eq!(super::fits(glob, name), fits, "{glob} {name}");
        }
    }

    /// The definition of a glob, slowly.
    fn slow(glob: &[u8], name: &[u8]) -> bool {
        match glob {
            [] => name.is_empty(),
            [b'*', b'*', rest @ ..] => (0..=name.len()).any(|n| slow(rest, &name[n..])),
            [b'*', rest @ ..] => {
                let most = memchr(b'.', name).unwrap_or(name.len());
                (0..=most).any(|n| slow(rest, &name[n..]))
            }
            [b'?', rest @ ..] => name.first().is_some_and(|c| *c != b'.') && slow(rest, &name[1..]),
            [c, rest @ ..] => name.first() == Some(c) && slow(rest, &name[1..]),
        }
    }

    proptest! {
        #[test]
        fn the_fast_matcher_is_the_slow_one(glob in "[ab.*?]{0,8}", name in "[ab.]{0,8}") {
            // Three stars in a row have no meaning.
            prop_assume!(!glob.contains("***"));
            prop_assert_eq!(matches(glob.as_bytes(), name.as_bytes()), slow(glob.as_bytes(), name.as_bytes()));
        }
    }
}
