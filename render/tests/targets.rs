//! Any tree that can be printed parses back to itself.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use proptest::prelude::*;
use render::query::{Argument, Base, Call, Expression, Literal, Template, Text, parse};

/// A path as a parser could have made it: any characters, a symbol only where it may stand.
fn path() -> impl Strategy<Value = String> {
    let node = prop_oneof![
        4 => "[a-z][a-z0-9*?:;=%$~!@#&_-]{0,6}",
        1 => "[a-z]{1,3}\\{[a-z]{1,2},[a-z*]{1,2}\\}",
        1 => "[a-z(){},'\"\\\\|]{1,5}",
        1 => "[0-9ü-]{1,4}",
    ];
    let paths = prop::collection::vec(node, 1..4).prop_map(|nodes| nodes.join("."));
    // As an argument, what spells a number or a word is that; and no target begins beyond ASCII.
    paths.prop_filter("a path by all means", |path| {
        let printed = Base::Path(path.clone()).to_string();
        let call = parse(&format!("f({printed})")).unwrap().expression.base;
        let Base::Call(call) = call else { return false };
        let is_path = |argument: &Argument| match argument {
            Argument::Expression(expression) => expression.base == Base::Path(path.clone()),
            Argument::Literal(_) => false,
        };
        printed.is_ascii() && call.args.first().is_some_and(is_path)
    })
}

fn name() -> impl Strategy<Value = String> {
    "[a-zA-Z_][a-zA-Z0-9_]{0,8}".prop_filter("template() is no call", |name| name != "template")
}

fn number() -> impl Strategy<Value = Literal> {
    prop_oneof![
        any::<i64>().prop_map(Literal::Integer),
        any::<f64>()
            .prop_filter("only finite numbers are written", |n| n.is_finite())
            .prop_map(Literal::Float),
    ]
}

fn text() -> impl Strategy<Value = Literal> {
    prop_oneof![
        "[ -!#-\\[\\]-~ü]{0,8}".prop_map(|text| (text, '"')),
        "[ -&(-\\[\\]-~ü]{0,8}".prop_map(|text| (text, '\'')),
    ]
    .prop_map(|(text, quote)| Literal::Text(Text { text, quote }))
}

fn literal() -> impl Strategy<Value = Literal> {
    prop_oneof![
        number(),
        text(),
        any::<bool>().prop_map(Literal::Boolean),
        Just(Literal::None),
        Just(Literal::Infinity),
    ]
}

fn template(body: Base) -> impl Strategy<Value = Base> {
    let values = || prop_oneof![number(), text()];
    let args = prop::collection::vec(values(), 0..3).prop_map(|args| (args, Vec::new()));
    let keywords = prop::collection::vec((name(), values()), 0..3);
    let keywords = keywords.prop_map(|keywords| (Vec::new(), keywords));
    prop_oneof![args, keywords].prop_map(move |(args, keywords)| {
        Base::Template(Box::new(Template {
            body: body.clone(),
            args,
            keywords,
        }))
    })
}

fn expression() -> impl Strategy<Value = Expression> {
    let plain = path().prop_map(|path| Expression {
        base: Base::Path(path),
        piped: Vec::new(),
    });
    plain.prop_recursive(4, 24, 3, |inner| {
        let argument = || {
            prop_oneof![
                literal().prop_map(Argument::Literal),
                inner.clone().prop_map(Argument::Expression),
            ]
        };
        let args = prop::collection::vec(argument(), 0..3);
        let keywords = prop::collection::vec((name(), argument()), 0..2);
        let call = (name(), args, keywords).prop_map(|(name, args, keywords)| Call {
            keywords: if args.is_empty() {
                Vec::new()
            } else {
                keywords
            },
            name,
            args,
            raw: String::new(),
            at: 0,
        });
        let call = call.boxed();
        let base = prop_oneof![
            path().prop_map(Base::Path),
            call.clone().prop_map(Base::Call),
            path().prop_map(Base::Path).prop_flat_map(template),
            call.clone().prop_map(Base::Call).prop_flat_map(template),
        ];
        (base, prop::collection::vec(call, 0..2))
            .prop_map(|(base, piped)| Expression { base, piped })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn what_is_printed_parses_to_itself(expression in expression()) {
        let printed = expression.to_string();
        let parsed = parse(&printed).unwrap();
        prop_assert_eq!(parsed.rest, None, "{}", printed);
        prop_assert_eq!(parsed.expression, expression, "{}", printed);
    }

    #[test]
    fn what_parses_prints_to_itself(text in "[a-z(){},.'\"\\\\|=0-9 -]{1,40}") {
        if let Ok(parsed) = parse(&text) {
            let printed = parsed.expression.to_string();
            let again = parse(&printed).unwrap();
            prop_assert_eq!(again.rest, None, "{}", printed);
            prop_assert_eq!(again.expression, parsed.expression, "{}", printed);
        }
    }
}
