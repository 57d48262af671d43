//! Files of sections with patterns, of which the first that matches a name applies.

use std::fmt::Debug;
use std::path::Path;

use carbon::conf::{Findings, load_text};
use carbon::schema::RuleList;
use carbon::series::canonical;

/// `text` is a file and, after an empty line with a dot, names. Read twice, the file is the same; `sound`
/// checks each rule; the first match found in one search is that of trying each pattern.
pub fn check<R: Debug + PartialEq>(
    text: &str,
    parse: impl Fn(&str, &mut Findings) -> RuleList<R>,
    sound: impl Fn(&R),
) {
    let (file, names) = text.split_once("\n.\n").unwrap_or((text, ""));
    let read = || load_text(Path::new("f"), file, &parse);
    let (first, second) = match (read(), read()) {
        (Ok(first), Ok(second)) => (first, second),
        (Err(first), Err(second)) => return assert_eq!(first, second),
        _ => panic!("accepted once, refused once"),
    };
    assert_eq!(first.value.rules(), second.value.rules());
    assert_eq!(first.warnings, second.warnings);
    first.value.rules().iter().for_each(sound);
    for name in names.lines().take(32) {
        let Ok(name) = canonical(name.as_bytes()) else {
            continue;
        };
        let found = first.value.find(&name);
        assert_eq!(found, first.value.find_slowly(&name), "{name}");
    }
}
