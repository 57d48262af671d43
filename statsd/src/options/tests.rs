//! Options as text and back.

use super::*;

#[test]
fn every_field_has_its_key_and_reads_back() {
    let options = Options::default();
    let json = serde_json::to_value(&options).unwrap();
    let mut fields: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
    let mut keys: Vec<_> = KEYS.iter().map(|key| key.name.to_owned()).collect();
    fields.sort();
    keys.sort();
    assert_eq!(fields, keys);
    assert_eq!(serde_json::from_value::<Options>(json).unwrap(), options);
}

#[test]
fn percentiles_are_a_number_or_a_list() {
    let read = |text: &str| serde_json::from_str::<Percentiles>(text).map(|list| list.0);
    assert_eq!(read("0").unwrap(), [90.0]);
    assert_eq!(read("95").unwrap(), [95.0]);
    assert_eq!(read("[]").unwrap(), [0.0; 0]);
    assert_eq!(
        read("[-10, 0, 99.9, \"50\"]").unwrap(),
        [-10.0, 0.0, 99.9, 50.0]
    );
    for bad in ["101", "[\"x\"]", "\"\"", "true"] {
        assert!(read(bad).is_err(), "{bad}");
    }
}

#[test]
fn outputs_read_back_as_printed() {
    for text in [
        "embedded",
        "console",
        "discard",
        "tcp://h:2003",
        "pickle://[::1]:2004",
    ] {
        assert_eq!(text.parse::<Output>().unwrap().to_string(), text);
    }
    assert_eq!("tcp://h".parse(), Ok(Output::Tcp("h:2003".to_owned())));
    assert_eq!(
        "tcp://[::1]".parse(),
        Ok(Output::Tcp("[::1]:2003".to_owned()))
    );
    for bad in ["", "udp://x", "tcp://", "file"] {
        assert!(bad.parse::<Output>().is_err(), "{bad}");
    }
}

#[test]
fn a_choice_is_true_false_or_idle() {
    for (text, choice) in [
        ("true", Choice::Yes),
        ("false", Choice::No),
        ("\"idle\"", Choice::Idle),
    ] {
        assert_eq!(serde_json::from_str::<Choice>(text).unwrap(), choice);
        assert_eq!(serde_json::to_string(&choice).unwrap(), text);
    }
    assert!(serde_json::from_str::<Choice>("\"yes\"").is_err());
}
