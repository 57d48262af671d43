//! Events as JSON lines, one a line: for backups, for moving house, for other programs.

use serde_json::Value;

use super::{Draft, Error, Event};

/// The event as one line, with its line end: every field as it is stored. The verdict on it is left
/// out: it depends on the series of this server.
pub fn write(event: &Event) -> String {
    let event = Event {
        impact: None,
        ..event.clone()
    };
    // A structure of plain fields cannot fail to print.
    let mut line = serde_json::to_string(&event).unwrap_or_default();
    line.push('\n');
    line
}

/// Reads what [`write()`] wrote, or what Graphite answers to `/events/get_data`: events one a line,
/// or as one JSON array.
///
/// # Errors
/// [`Error::Refused`] naming the first line (or place in the array) that is no event.
pub fn read(text: &str) -> Result<Vec<Event>, Error> {
    if text.trim_start().starts_with('[') {
        let array: Vec<Value> =
            serde_json::from_str(text).map_err(|error| at("the array", &error.to_string()))?;
        let place = |i: usize| format!("event {}", i + 1);
        let events = array
            .iter()
            .enumerate()
            .map(|(i, json)| event(json).map_err(|error| at(&place(i), &error.to_string())));
        return events.collect();
    }
    let lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty());
    let events = lines.map(|(i, line)| {
        let read = serde_json::from_str(line).map_err(|error| error.to_string());
        let event = read.and_then(|json| event(&json).map_err(|error| error.to_string()));
        event.map_err(|why| at(&format!("line {}", i + 1), &why))
    });
    events.collect()
}

/// About the bytes that [`read()`] takes for `text` at most, beside the text.
pub(crate) fn memory_of(text: &[u8]) -> usize {
    let ends = if text.trim_ascii_start().starts_with(b"[") {
        b'{'
    } else {
        b'\n'
    };
    let n_events = 1 + text.iter().filter(|&&byte| byte == ends).count();
    // All values of an array are there at once; a list doubles while it grows.
    let n_values = match ends {
        b'{' => text.iter().filter(|&&byte| byte == b',').count(),
        _ => 0,
    };
    n_events * (2 * size_of::<Event>() + PER_EVENT)
        + n_values * 4 * size_of::<Value>()
        + 2 * text.len()
}

/// What the allocator takes for the texts and tags of an event beside their bytes.
const PER_EVENT: usize = 256;

fn at(place: &str, why: &str) -> Error {
    Error::Refused(format!("{place}: {why}"))
}

fn event(json: &Value) -> Result<Event, Error> {
    let draft = Draft::from_json(json)?;
    if draft.when.is_none() {
        return Err(Error::Refused("\"when\" is missing".to_owned()));
    }
    let mut event = draft.create(0.0)?;
    event.id = json["id"].as_i64().unwrap_or(0).max(0);
    Ok(event)
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    #[test]
    fn lines_read_back_as_written() {
        let event = Event {
            id: 3,
            what: "a \"quoted\"\nthing é".to_owned(),
            data: "x".to_owned(),
            tags: vec!["a".to_owned(), "b,c".to_owned()],
            when: 1.25,
            until: Some(9.5),
            status: Status::RolledBack,
            rollback_of: Some(1),
            link: Some("https://x/".to_owned()),
            key: Some("k".to_owned()),
            ..Event::default()
        };
        let plain = Event {
            when: 5.0,
            ..Event::default()
        };
        let text = write(&event) + "\n" + &write(&plain);
        assert_eq!(read(&text).unwrap(), [event, plain]);
    }

    #[test]
    fn graphites_answer_is_read() {
        let text = r#"[{"when": 5, "what": "a", "data": "d", "tags": ["x"], "id": 9}]"#;
        let events = read(text).unwrap();
        assert_eq!((events[0].id, events[0].when), (9, 5.0));
    }

    #[test]
    fn the_line_at_fault_is_named() {
        let error = read("{\"what\": \"a\", \"when\": 1}\n\n{\"what\": \"a\"}").unwrap_err();
        assert_eq!(error.to_string(), "line 3: \"when\" is missing");
        assert!(read("[{}]").unwrap_err().to_string().starts_with("event 1"));
        assert!(read("nonsense").is_err());
        assert!(read("[").is_err());
    }
}
