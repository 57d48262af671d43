#![no_main]
//! A relay-rules.conf and a name: refused, or every name has a destination, each once; destinations read
//! back; a limit to one destination leaves that one or refuses.

use carbon::conf::load_text;
use carbon::relay::member::Member;
use carbon::relay::rules::{destinations_of, limit, parse};
use carbon::rules::Faults;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str)| {
    let (text, name) = input;
    let Ok(loaded) = load_text("f".as_ref(), text, parse) else {
        return;
    };
    let mut rules = loaded.value;
    let all: Vec<Member> = destinations_of(&rules, name, &mut Faults::default())
        .into_iter()
        .cloned()
        .collect();
    assert!(!all.is_empty());
    for (n, member) in all.iter().enumerate() {
        assert!(!all[..n].contains(member));
        assert_eq!(member.to_string().parse::<Member>().as_ref(), Ok(member));
    }
    if limit(&mut rules, &all[..1]).is_ok() {
        let left = destinations_of(&rules, name, &mut Faults::default());
        assert_eq!(left, [&all[0]]);
    }
});
