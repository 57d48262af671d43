//! What parameters are read as.

use std::collections::HashSet;

use super::*;

fn read(pairs: &[(&str, &str)]) -> Params {
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    Params::from_pairs(&pairs)
}

#[test]
fn defaults_are_graphites() {
    let p = Params::default();
    assert_eq!((p.width, p.height), (330, 250));
    assert_eq!(p.margin, 10.0);
    assert_eq!(p.line_width, 1.2);
    assert_eq!(p.divisors, [4, 5, 6]);
    assert_eq!(p.hide_legend, None);
    assert_eq!(p.background, Color::opaque(255, 255, 255));
    assert_eq!(p.major_line, Color::opaque(200, 150, 200));
    assert_eq!(p.colors.len(), 12);
    assert_eq!(p.pie_mode, PieMode::Average);
    assert!(p.bad_word.is_none());
}

#[test]
fn every_parameter_is_in_the_table_once() {
    let names: HashSet<&str> = PARAMETERS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names.len(), PARAMETERS.len());
}

#[test]
fn an_old_name_gives_way_to_the_new_one_if_that_reads() {
    for (new, old) in [("yMin", "min"), ("yMax", "max"), ("lineWidth", "thickness")] {
        for order in [[(new, "5"), (old, "3")], [(old, "3"), (new, "5")]] {
            let p = read(&order);
            let expected = read(&[(new, "5")]);
            assert_eq!((p.axis, p.line_width), (expected.axis, expected.line_width));
        }
        let p = read(&[(new, "wide"), (old, "3")]);
        let expected = read(&[(old, "3")]);
        assert_eq!((p.axis, p.line_width), (expected.axis, expected.line_width));
    }
}

#[test]
fn the_last_of_a_repeated_parameter_counts() {
    assert_eq!(read(&[("width", "100"), ("width", "200")]).width, 200);
}

#[test]
fn flags_read_as_python_would() {
    for (text, hidden) in [
        ("0", Some(false)),
        ("false", Some(false)),
        ("False", Some(false)),
        ("1", Some(true)),
        ("true", Some(true)),
        ("yes", Some(true)),
        ("default", None),
        ("", None),
    ] {
        assert_eq!(read(&[("hideLegend", text)]).hide_legend, hidden, "{text}");
    }
}

#[test]
fn nonsense_counts_as_absent() {
    let p = read(&[
        ("width", "wide"),
        ("height", "-3"),
        ("margin", "-1"),
        ("yMin", "nan"),
        ("fontSize", "x"),
        ("bgcolor", "nope"),
        ("yDivisors", "0,-1,x"),
        ("logBase", "0.5"),
    ]);
    assert_eq!((p.width, p.height), (330, 250));
    assert_eq!(p.margin, 10.0);
    assert_eq!(p.axis, AxisLimits::default());
    assert_eq!(p.background, Color::opaque(255, 255, 255));
    assert_eq!(p.divisors, [4, 5, 6]);
    assert_eq!(p.log_base, None);
}

#[test]
fn old_names_work() {
    let p = read(&[("min", "1"), ("max", "max"), ("thickness", "3")]);
    assert_eq!(p.axis.min, Some(1.0));
    assert_eq!(p.axis.max, AxisMax::Extremum);
    assert_eq!(p.line_width, 3.0);
}

#[test]
fn unknown_words_are_remembered_not_guessed() {
    let bad = read(&[("lineMode", "curly")]).bad_word.unwrap();
    assert_eq!((bad.parameter, bad.value.as_str()), ("lineMode", "curly"));
    assert!(read(&[("lineMode", "Staircase")]).bad_word.is_none());
    let pie = ("graphType", "pie");
    assert!(read(&[("pieMode", "curly")]).bad_word.is_none());
    assert!(read(&[pie, ("pieMode", "curly")]).bad_word.is_some());
    assert!(read(&[pie, ("lineMode", "curly")]).bad_word.is_none());
}

#[test]
fn titles_are_decoded_once_more_and_split() {
    assert_eq!(
        read(&[("title", "a%20b+c\\nd\ne")]).title,
        ["a b c", "d", "e"]
    );
    assert_eq!(unquote_plus("100%"), "100%");
    assert_eq!(unquote_plus("%zz%é"), "%zz%é");
    assert!(read(&[("title", "x"), ("graphOnly", "1")]).title.is_empty());
}
