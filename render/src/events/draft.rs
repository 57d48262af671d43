//! A draft: what a sender said about an event, before the store has it.
//!
//! 1. Every field may be missing. Missing means "as it was" when the event exists already (a known
//!    key, a PATCH), and the default when it is new.
//! 2. A JSON `null` takes an optional field away; on a field that cannot be empty it is refused.
//! 3. Nothing unchecked gets past [`Draft::from_json`] and [`Draft::check`]: lengths, times and
//!    links are within the limits below, for any input.

use serde_json::{Map, Value};

use super::{Error, Event, Status, python};

/// Most characters in `what`, a label's worth and more.
pub const MAX_WHAT: usize = 1024;
/// Most bytes in `data`.
pub const MAX_DATA: usize = 256 * 1024;
/// Most tags on one event.
pub const MAX_TAGS: usize = 100;
/// Most bytes in one tag.
pub const MAX_TAG: usize = 255;
/// Most bytes in a link or a key.
pub const MAX_LINK: usize = 2048;
/// The years 1 to 9999, which is what Graphite's dates can hold.
const TIMESTAMPS: std::ops::RangeInclusive<f64> = -62_135_596_800.0..=253_402_300_799.0;

/// What was said about an event. See the module's rules for what `None` means.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Draft {
    /// One line: what happened.
    pub what: Option<String>,
    /// Any text.
    pub data: Option<String>,
    /// Words to select it by; a word with blanks in it becomes several.
    pub tags: Option<Vec<String>>,
    /// Unix seconds; the clock when missing.
    pub when: Option<f64>,
    /// Its end; `Some(None)` takes an end away.
    pub until: Option<Option<f64>>,
    /// Seconds from its beginning to its end, where there is no `until`.
    pub duration: Option<f64>,
    /// How it went.
    pub status: Option<Status>,
    /// The id of the event that it undoes; `Some(None)` takes it away.
    pub rollback_of: Option<Option<i64>>,
    /// Where to read more; `Some(None)` takes it away.
    pub link: Option<Option<String>>,
    /// The sender's own key. Only ever set, never taken away.
    pub key: Option<String>,
}

impl Draft {
    /// An event with nothing but `what` and `tags`, for now.
    pub fn new(what: impl Into<String>, tags: &[&str]) -> Self {
        Self {
            what: Some(what.into()),
            tags: Some(tags.iter().map(|&tag| tag.to_owned()).collect()),
            ..Self::default()
        }
    }

    /// An event that came as a datagram, from its plain fields.
    pub fn from_mark(
        what: String,
        data: String,
        tags: Vec<String>,
        when: Option<i64>,
        key: Option<String>,
    ) -> Self {
        Self {
            what: Some(what),
            data: Some(data),
            tags: Some(tags),
            when: when.map(|when| when as f64),
            key,
            ..Self::default()
        }
    }

    /// Reads an event as `POST /events/` takes it: graphite-web's `what`, `tags` (a list, or a text
    /// split at blanks), `when`, `data`, and ours: `until` or `duration` (seconds), `status`,
    /// `rollback_of`, `link`, `key`. Other fields are ignored, as Graphite ignores them.
    ///
    /// # Errors
    /// [`Error::Refused`] with a sentence that names the field.
    pub fn from_json(json: &Value) -> Result<Self, Error> {
        let Value::Object(fields) = json else {
            return refuse(
                "an event is a JSON object, for example {\"what\": \"deploy 1.4\", \"tags\": \"deploy web\"}",
            );
        };
        let when = fields
            .get("when")
            .map(|value| timestamp("when", value))
            .transpose()?;
        let until = match fields.get("until") {
            None => None,
            Some(Value::Null) => Some(None),
            Some(value) => Some(Some(timestamp("until", value)?)),
        };
        let duration = match fields.get("duration") {
            None | Some(Value::Null) => None,
            Some(value) => match value.as_f64() {
                Some(seconds) if seconds >= 0.0 => Some(seconds),
                _ => return refuse("\"duration\" must be a number of seconds"),
            },
        };
        let draft = Self {
            what: match fields.get("what") {
                None => None,
                Some(Value::Null) => return refuse("\"what\" must be a text"),
                Some(value) => Some(python::str(value)),
            },
            data: match fields.get("data") {
                None => None,
                Some(Value::Null) => Some(String::new()),
                Some(value) => Some(python::str(value)),
            },
            tags: fields.get("tags").map(words).transpose()?,
            when,
            until,
            duration,
            status: match fields.get("status") {
                None | Some(Value::Null) => None,
                Some(value) => Some(status(value)?),
            },
            rollback_of: optional(fields, "rollback_of", |value| {
                value.as_i64().ok_or_else(|| {
                    Error::Refused("\"rollback_of\" must be the id of an event".to_owned())
                })
            })?,
            link: optional(fields, "link", |value| text("link", value))?,
            key: match fields.get("key").or_else(|| fields.get("idempotency_key")) {
                None | Some(Value::Null) => None,
                Some(value) => Some(text("key", value)?),
            },
        };
        draft.check()?;
        Ok(draft)
    }

    /// Refuses what is too long, out of range or not a web link. Senders other than
    /// [`Draft::from_json`] call it through the store.
    ///
    /// # Errors
    /// [`Error::Refused`] with a sentence that names the field.
    pub fn check(&self) -> Result<(), Error> {
        let Self {
            what,
            data,
            tags,
            when,
            until,
            duration,
            status: _,
            rollback_of: _,
            link,
            key,
        } = self;
        if what
            .as_ref()
            .is_some_and(|what| what.chars().count() > MAX_WHAT)
        {
            return refuse(format!(
                "\"what\" is longer than {MAX_WHAT} characters: the rest belongs into \"data\""
            ));
        }
        if data.as_ref().is_some_and(|data| data.len() > MAX_DATA) {
            return refuse(format!("\"data\" is longer than {MAX_DATA} bytes"));
        }
        let tags = tags.as_deref().unwrap_or_default();
        if tags.len() > MAX_TAGS {
            return refuse(format!("more than {MAX_TAGS} tags"));
        }
        if let Some(tag) = tags.iter().find(|tag| tag.len() > MAX_TAG) {
            let start: String = tag.chars().take(20).collect();
            return refuse(format!("the tag {start:?}… is longer than {MAX_TAG} bytes"));
        }
        for (name, timestamp) in [("when", *when), ("until", until.flatten())] {
            if timestamp.is_some_and(|timestamp| !TIMESTAMPS.contains(&timestamp)) {
                return refuse(format!(
                    "\"{name}\" is not a timestamp between the years 1 and 9999 (it is in seconds, not milliseconds)"
                ));
            }
        }
        if duration.is_some_and(|seconds| !(0.0..=1e10).contains(&seconds)) {
            return refuse("\"duration\" is not a duration in seconds");
        }
        for (name, value) in [
            ("link", link.as_ref().and_then(Option::as_ref)),
            ("key", key.as_ref()),
        ] {
            if value.is_some_and(|value| value.len() > MAX_LINK) {
                return refuse(format!("\"{name}\" is longer than {MAX_LINK} bytes"));
            }
        }
        match link {
            Some(Some(link)) if !is_web_link(link) => {
                refuse("\"link\" must begin with http:// or https:// and hold no blanks")
            }
            _ => Ok(()),
        }
    }

    /// The event that this draft makes at the clock `now` when it is new.
    ///
    /// # Errors
    /// [`Error::Refused`] if it does not say what happened, or ends before it begins.
    pub(super) fn create(self, now: f64) -> Result<Event, Error> {
        if self.what.is_none() {
            return refuse("\"what\" is missing: the name of the event, one line");
        }
        // Who says only when it ended does not mean that it began afterwards.
        let end = self.until.flatten().unwrap_or(now);
        let mut event = Event {
            when: to_micros(now.min(end)),
            ..Event::default()
        };
        self.apply(&mut event, now)?;
        Ok(event)
    }

    /// Puts what this draft says over `event`.
    ///
    /// A change that was under way and has ended without a time ended `now`.
    ///
    /// # Errors
    /// [`Error::Refused`] if it would end before it begins.
    pub(super) fn apply(self, event: &mut Event, now: f64) -> Result<(), Error> {
        let was_open = event.status == Status::Started && event.until.is_none();
        let Self {
            what,
            data,
            tags,
            when,
            until,
            duration,
            status,
            rollback_of,
            link,
            key,
        } = self;
        if let Some(what) = what {
            event.what = what;
        }
        if let Some(data) = data {
            event.data = data;
        }
        if let Some(tags) = tags {
            event.tags = split(&tags);
        }
        if let Some(when) = when {
            event.when = to_micros(when);
        }
        if let Some(status) = status {
            event.status = status;
        }
        match until.or(duration.map(|seconds| Some(event.when + seconds))) {
            Some(until) => event.until = until.map(to_micros),
            None if was_open && status.is_some_and(|status| status != Status::Started) => {
                event.until = Some(to_micros(now).max(event.when));
            }
            None => {}
        }
        if let Some(rollback_of) = rollback_of {
            event.rollback_of = rollback_of;
        }
        if let Some(link) = link {
            event.link = link;
        }
        if let Some(key) = key {
            event.key = Some(key);
        }
        if event.until.is_some_and(|until| until < event.when) {
            return refuse("\"until\" is before \"when\"");
        }
        Ok(())
    }
}

impl From<Event> for Draft {
    fn from(event: Event) -> Self {
        Self {
            what: Some(event.what),
            data: Some(event.data),
            tags: Some(event.tags),
            when: Some(event.when),
            until: Some(event.until),
            duration: None,
            status: Some(event.status).filter(|status| !status.is_unstated()),
            rollback_of: Some(event.rollback_of),
            link: Some(event.link),
            key: event.key,
        }
    }
}

/// Whether a link may be shown as one: `http` or `https`, nothing that could end an attribute.
pub fn is_web_link(link: &str) -> bool {
    let rest = ["http://", "https://"].iter().find_map(|scheme| {
        let head = link.get(..scheme.len())?;
        head.eq_ignore_ascii_case(scheme)
            .then(|| &link[scheme.len()..])
    });
    rest.is_some_and(|rest| {
        !rest.is_empty()
            && !rest
                .chars()
                .any(|c| c.is_whitespace() || c.is_control() || "\"'<>\\`".contains(c))
    })
}

/// Reads a timestamp: Unix seconds as a number or as digits in a text, or an ISO 8601 date and time
/// with its offset (`2026-11-20T13:00:00Z`).
pub(super) fn timestamp(name: &str, value: &Value) -> Result<f64, Error> {
    let timestamp = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok().or_else(|| {
            let at: jiff::Timestamp = text.trim().parse().ok()?;
            Some(at.as_microsecond() as f64 / 1e6)
        }),
        _ => None,
    };
    match timestamp {
        Some(timestamp) if timestamp.is_finite() => Ok(timestamp),
        _ => refuse(format!(
            "\"{name}\" must be Unix seconds or a time such as \"2026-11-20T13:00:00Z\""
        )),
    }
}

/// Reads a status by its name.
pub(super) fn status(value: &Value) -> Result<Status, Error> {
    value.as_str().and_then(Status::parse).ok_or_else(|| {
        let names = Status::GIVEN.map(Status::name).join(", ");
        Error::Refused(format!("\"status\" must be one of {names}"))
    })
}

/// Reads tags: a list of texts, or a text; split at blanks.
pub(super) fn words(value: &Value) -> Result<Vec<String>, Error> {
    const KIND: &str = "\"tags\" must be an array or space-separated string";
    match value {
        Value::Null => Ok(Vec::new()),
        Value::String(text) => Ok(split(std::slice::from_ref(text))),
        Value::Array(items) => {
            let texts: Option<Vec<String>> = items
                .iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect();
            texts.map_or_else(|| refuse(KIND), |texts| Ok(split(&texts)))
        }
        _ => refuse(KIND),
    }
}

fn split(texts: &[String]) -> Vec<String> {
    texts
        .iter()
        .flat_map(|text| text.split_whitespace())
        .map(str::to_owned)
        .collect()
}

fn text(name: &str, value: &Value) -> Result<String, Error> {
    match value.as_str() {
        Some(text) if !text.is_empty() => Ok(text.to_owned()),
        _ => refuse(format!("\"{name}\" must be a text that is not empty")),
    }
}

fn optional<T>(
    fields: &Map<String, Value>,
    name: &str,
    read: impl FnOnce(&Value) -> Result<T, Error>,
) -> Result<Option<Option<T>>, Error> {
    match fields.get(name) {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(None)),
        Some(value) => read(value).map(|value| Some(Some(value))),
    }
}

/// Times are kept to the microsecond, as Python's dates are: a float has no more to give.
fn to_micros(timestamp: f64) -> f64 {
    (timestamp * 1e6).round() / 1e6
}

fn refuse<T>(why: impl Into<String>) -> Result<T, Error> {
    Err(Error::Refused(why.into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn created(json: Value) -> Result<Event, String> {
        Draft::from_json(&json)
            .and_then(|draft| draft.create(500.0))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn graphites_fields_are_read_as_graphite_reads_them() {
        let event =
            created(json!({"what": "seq", "tags": "zz  run aa", "data": {"k": "v"}, "extra": 1}));
        let event = event.unwrap();
        assert_eq!(event.tags, ["zz", "run", "aa"]);
        assert_eq!(event.data, "{'k': 'v'}");
        assert_eq!(event.when, 500.0);
        let event = created(json!({"what": 5, "tags": ["a b", "c"], "when": 1.7, "data": null}));
        let event = event.unwrap();
        assert_eq!(event.what, "5");
        assert_eq!(event.tags, ["a", "b", "c"]);
        assert_eq!((event.when, event.data.as_str()), (1.7, ""));
    }

    #[test]
    fn senseless_events_are_refused_with_a_sentence() {
        for (json, part) in [
            (json!([]), "JSON object"),
            (json!({}), "\"what\" is missing"),
            (json!({"what": null}), "\"what\""),
            (
                json!({"what": "x", "tags": {"a": 1}}),
                "\"tags\" must be an array",
            ),
            (
                json!({"what": "x", "tags": true}),
                "\"tags\" must be an array",
            ),
            (
                json!({"what": "x", "tags": [1]}),
                "\"tags\" must be an array",
            ),
            (json!({"what": "x", "when": null}), "\"when\""),
            (json!({"what": "x", "when": "soon"}), "\"when\""),
            (json!({"what": "x", "when": "nan"}), "\"when\""),
            (json!({"what": "x", "when": 1.7e12}), "milliseconds"),
            (json!({"what": "x", "when": 10, "until": 5}), "before"),
            (json!({"what": "x", "duration": -5}), "\"duration\""),
            (json!({"what": "x", "status": "fine"}), "started, succeeded"),
            (
                json!({"what": "x", "link": "javascript:alert(1)"}),
                "\"link\"",
            ),
            (
                json!({"what": "x", "link": "https://a\" onclick=\""}),
                "\"link\"",
            ),
            (json!({"what": "x", "rollback_of": "y"}), "\"rollback_of\""),
            (json!({"what": "w".repeat(1025)}), "1024"),
            (json!({"what": "x", "tags": "t".repeat(256)}), "255"),
            (json!({"what": "x", "tags": "t ".repeat(101)}), "100 tags"),
        ] {
            let error = created(json.clone()).unwrap_err();
            assert!(error.contains(part), "{json}: {error}");
        }
    }

    #[test]
    fn ours_are_read_too() {
        let event = created(json!({
            "what": "deploy", "when": "2023-11-14T22:13:20Z", "duration": 90, "status": "failed",
            "rollback_of": 3, "link": "HTTPS://ci/1?a=b&c", "key": "run-1"
        }))
        .unwrap();
        assert_eq!(event.when, 1_700_000_000.0);
        assert_eq!(event.until, Some(1_700_000_090.0));
        assert_eq!(event.status, Status::Failed);
        assert_eq!(event.rollback_of, Some(3));
        assert_eq!(event.key.as_deref(), Some("run-1"));
    }

    #[test]
    fn an_ended_change_ended_now_unless_said_otherwise() {
        let mut event = created(json!({"what": "deploy", "status": "started"})).unwrap();
        let ended = Draft::from_json(&json!({"status": "succeeded"})).unwrap();
        ended.apply(&mut event, 560.0).unwrap();
        assert_eq!((event.when, event.until), (500.0, Some(560.0)));
        let cleared = Draft::from_json(&json!({"until": null, "link": null})).unwrap();
        cleared.apply(&mut event, 600.0).unwrap();
        assert_eq!((event.until, event.link), (None, None));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(2, 8, 4, |inner| {
            prop::collection::vec(inner, 0..4).prop_map(Value::from)
        })
    }

    #[test]
    fn times_taken_from_the_end_or_the_clock_are_whole_microseconds_too() {
        // Rounded down by itself, the end would lie before a beginning that is not rounded.
        let event = Draft::from_json(&json!({"what": "x", "until": 7.000_000_4}))
            .and_then(|draft| draft.create(500.0))
            .unwrap();
        assert_eq!((event.when, event.until), (7.0, Some(7.0)));
        let event = Draft::from_json(&json!({"what": "x", "until": -1.5e-293}))
            .and_then(|draft| draft.create(0.0))
            .unwrap();
        assert_eq!(event.when, 0.0);
    }

    proptest! {
        #[test]
        fn any_json_is_an_event_or_refused(
            values in prop::collection::vec(any_json(), 10),
            present in any::<u16>(),
        ) {
            let names = [
                "what", "tags", "when", "data", "until", "duration", "status", "rollback_of", "link", "key",
            ];
            let fields = names.iter().zip(values).enumerate();
            let json = fields.filter(|(i, _)| present >> i & 1 == 1).map(|(_, (name, value))| ((*name).to_owned(), value));
            let json = Value::Object(json.collect());
            if let Ok(event) = Draft::from_json(&json).and_then(|draft| draft.create(0.0)) {
                prop_assert!(TIMESTAMPS.contains(&event.when));
                prop_assert!(event.tags.iter().all(|tag| !tag.is_empty() && !tag.contains(char::is_whitespace)));
                let again = Draft::from(event.clone()).create(1.0).unwrap();
                prop_assert_eq!(again, event);
            }
        }
    }
}
