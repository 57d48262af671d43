//! DogStatsD's events (`_e`) and service checks (`_sc`).
//!
//! ```text
//! _e{TITLE BYTES,TEXT BYTES}:TITLE|TEXT[|d:SECONDS][|h:HOST][|k:KEY][|p:low][|s:SOURCE][|t:error][|#TAGS]
//! _sc|NAME|STATUS[|d:SECONDS][|h:HOST][|#TAGS][|m:MESSAGE]
//! ```
//!
//! Title and text are taken by length, so they may hold `|`; the two characters `\n` in a text
//! stand for a line feed. Chunks come in any order; unknown ones are skipped.
//!
//! The lengths are bytes in UTF-8. Some clients send the lengths that their language has, which are
//! less beyond ASCII: characters, or UTF-16 units (hot-shots). Title and text end at a bar, so the
//! first unit whose lengths do that is the one that was meant.

use std::hash::BuildHasher;

use crossbeam::channel;
use foldhash::fast::RandomState;
use hashbrown::HashMap;

/// An event that arrived as a line, or a change of a service check.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Title of the event, or the name of the service check.
    pub what: String,
    /// Text of the event, or the message of the check; may be empty.
    pub data: String,
    /// Tags as sent (`env:prod`), and those that the chunks imply (`host:web1`, `error`).
    pub tags: Vec<String>,
    /// Unix seconds if the sender said when, else the receiver's clock decides.
    pub when: Option<i64>,
    /// The aggregation key (`k:`), which makes repeated deliveries one event.
    pub key: Option<String>,
}

/// Where events go. Called from a thread that may wait, never from a receiving one.
pub trait EventSink: Send + Sync {
    /// Stores one event. Failures are counted and logged by the implementation.
    fn event(&self, event: Event);
}

/// The state of a service check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Ok,
    Warning,
    Critical,
    Unknown,
}

impl Status {
    fn of(text: &[u8]) -> Option<Self> {
        Some(match text {
            b"0" => Self::Ok,
            b"1" => Self::Warning,
            b"2" => Self::Critical,
            b"3" => Self::Unknown,
            _ => return None,
        })
    }

    /// The number that stands for it in the check's gauge.
    pub(crate) fn value(self) -> f64 {
        f64::from(self as u8)
    }

    fn tag(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Critical => "critical",
            Self::Unknown => "unknown",
        }
    }
}

/// A service check, as sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Check {
    pub(crate) status: Status,
    /// Name and tags as DogStatsD writes them: the gauge's key.
    pub(crate) gauge: Vec<u8>,
    pub(crate) event: Event,
}

/// Whether `line` is an event or a service check.
pub(crate) fn is_event(line: &[u8]) -> bool {
    line.starts_with(b"_e{") || line.starts_with(b"_sc|")
}

/// An event on its way to the thread that hands it on.
#[derive(Debug)]
pub(crate) enum EventReport {
    Event(Event),
    Check(Check),
}

/// Reads a line that [`is_event`]; `None` if it is malformed.
pub(crate) fn read(line: &[u8]) -> Option<EventReport> {
    if line.starts_with(b"_e") {
        event(line).map(EventReport::Event)
    } else {
        check(line).map(EventReport::Check)
    }
}

/// Reads `_e{…}`; `None` if it is malformed.
fn event(line: &[u8]) -> Option<Event> {
    let rest = line.strip_prefix(b"_e{")?;
    let close = memchr::memchr(b'}', rest)?;
    let lengths = std::str::from_utf8(&rest[..close]).ok()?;
    let (title, text) = lengths.split_once(',')?;
    let (title, text): (usize, usize) = (title.parse().ok()?, text.parse().ok()?);
    let rest = rest[close + 1..].strip_prefix(b":")?;
    if title == 0 || text == 0 {
        return None;
    }
    let (what, data, chunks) = UNITS.iter().find_map(|unit| {
        let (what, rest) = take(rest, title, *unit)?;
        let (data, rest) = take(rest.strip_prefix(b"|")?, text, *unit)?;
        match rest {
            [] => Some((what, data, None)),
            [b'|', chunks @ ..] => Some((what, data, Some(chunks))),
            _ => None,
        }
    })?;
    let mut event = Event {
        what: lossy(what),
        data: lossy(data).replace("\\n", "\n"),
        tags: Vec::new(),
        when: None,
        key: None,
    };
    for chunk in chunks.into_iter().flat_map(|text| text.split(is_bar)) {
        match chunk {
            [b'd', b':', at @ ..] => event.when = Some(seconds(at)?),
            [b'h', b':', host @ ..] => event.tags.push(format!("host:{}", lossy(host))),
            [b'k', b':', key @ ..] => event.key = Some(lossy(key)),
            b"p:low" => event.tags.push("priority:low".to_owned()),
            [b's', b':', source @ ..] => event.tags.push(format!("source:{}", lossy(source))),
            b"t:error" | b"t:warning" | b"t:success" => event.tags.push(lossy(&chunk[2..])),
            [b'#', tags @ ..] => add_tags(tags, &mut event.tags),
            _ => {}
        }
    }
    Some(event)
}

/// How many units of a length a character has that starts with this byte; 0 within a character.
type Unit = fn(u8) -> usize;

/// Bytes, characters, UTF-16 units. Invalid UTF-8 has some length in each.
const UNITS: [Unit; 3] = [
    |_| 1,
    |byte| usize::from(!is_continuation(byte)),
    |byte| usize::from(!is_continuation(byte)) + usize::from(byte >= 0xf0),
];

fn is_continuation(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

/// Cuts `length` units off the front of `bytes`; `None` if there are fewer.
fn take(bytes: &[u8], length: usize, unit: Unit) -> Option<(&[u8], &[u8])> {
    let mut taken = 0;
    // The end is before the first byte that would be too much, not after the last that is needed:
    // bytes within a character belong to it.
    let end = bytes.iter().position(|byte| {
        taken += unit(*byte);
        taken > length
    });
    match end {
        Some(end) => {
            let before = taken - unit(bytes[end]);
            (before == length).then(|| bytes.split_at(end))
        }
        None => (taken == length).then_some((bytes, &[])),
    }
}

/// Reads `_sc|…`; `None` if it is malformed.
fn check(line: &[u8]) -> Option<Check> {
    let mut chunks = line.strip_prefix(b"_sc|")?.split(is_bar);
    let name = chunks.next().filter(|name| !name.is_empty())?;
    let status = Status::of(chunks.next()?)?;
    let mut event = Event {
        what: lossy(name),
        data: String::new(),
        tags: vec!["service_check".to_owned(), status.tag().to_owned()],
        when: None,
        key: None,
    };
    // The gauge has the same tags as the event, in the order in which they were sent.
    let mut gauge = b"service_checks.".to_vec();
    gauge.extend_from_slice(name);
    let mut tags: Vec<u8> = Vec::new();
    for chunk in chunks.by_ref() {
        let mut add = |text: &[u8]| {
            if !tags.is_empty() {
                tags.push(b',');
            }
            tags.extend_from_slice(text);
        };
        match chunk {
            [b'd', b':', at @ ..] => event.when = Some(seconds(at)?),
            [b'h', b':', host @ ..] => {
                event.tags.push(format!("host:{}", lossy(host)));
                add(b"host:");
                tags.extend_from_slice(host);
            }
            [b'm', b':', message @ ..] => event.data = lossy(message).replace("\\n", "\n"),
            [b'#', list @ ..] => {
                add_tags(list, &mut event.tags);
                add(list);
            }
            _ => {}
        }
    }
    if !tags.is_empty() {
        gauge.extend_from_slice(crate::sanitize::TAGS);
        gauge.extend_from_slice(&tags);
    }
    Some(Check {
        status,
        gauge,
        event,
    })
}

/// Checks that are remembered in any case. Twice as many, which is the most, take some 5 MB.
const CHECKS: usize = 65_536;

/// Hands events to `sink` until all senders are gone: the store may take its time.
///
/// A check reports a status every few seconds; an event is when that changes.
pub(crate) fn hand_on(reports: channel::Receiver<EventReport>, sink: &dyn EventSink) {
    let mut checks = Checks::new(CHECKS);
    for report in reports {
        match report {
            EventReport::Event(event) => sink.event(event),
            EventReport::Check(check) => {
                if checks.report(&check.gauge, check.status) {
                    sink.event(check.event);
                }
            }
        }
    }
}

/// The last status of checks. One is forgotten when `most` others or more have reported since it did.
///
/// Checks are distinguished by a hash of 64 bits with a secret of this process, so that long names take no
/// more room.
struct Checks {
    most: usize,
    /// Up to `most` that reported last.
    recent: HashMap<u64, Status>,
    /// Those that had reported when `recent` was full, and have not since.
    earlier: HashMap<u64, Status>,
    hasher: RandomState,
}

impl Checks {
    fn new(most: usize) -> Self {
        Self {
            most,
            recent: HashMap::new(),
            earlier: HashMap::new(),
            hasher: RandomState::default(),
        }
    }

    /// Takes the status of the check with this key; returns whether it had another one, or none.
    fn report(&mut self, key: &[u8], status: Status) -> bool {
        let key = self.hasher.hash_one(key);
        if let Some(known) = self.recent.get_mut(&key) {
            return std::mem::replace(known, status) != status;
        }
        let before = self.earlier.remove(&key);
        if self.recent.len() >= self.most {
            // What has not reported for so long goes.
            self.earlier = std::mem::take(&mut self.recent);
        }
        self.recent.insert(key, status);
        before != Some(status)
    }
}

fn is_bar(byte: &u8) -> bool {
    *byte == b'|'
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

fn seconds(text: &[u8]) -> Option<i64> {
    let at = crate::number::decimal(text)?;
    (0.0..4_294_967_296.0).contains(&at).then_some(at as i64)
}

fn add_tags(list: &[u8], tags: &mut Vec<String>) {
    for tag in list.split(|byte| *byte == b',') {
        if !tag.is_empty() {
            tags.push(lossy(tag));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_by_length() {
        let read = event(
            b"_e{21,36}:An exception occurred|Cannot parse CSV file from 10.0.0.17|t:warning|#err_type:bad_file",
        )
        .unwrap();
        assert_eq!(read.what, "An exception occurred");
        assert_eq!(read.data, "Cannot parse CSV file from 10.0.0.17");
        assert_eq!(read.tags, ["warning", "err_type:bad_file"]);
        let read = event(b"_e{3,4}:a|b|c\\nd|d:1700000000|h:web1|k:v7|p:low|s:ci|x:y|c:1").unwrap();
        assert_eq!((read.what.as_str(), read.data.as_str()), ("a|b", "c\nd"));
        assert_eq!(read.tags, ["host:web1", "priority:low", "source:ci"]);
        assert_eq!(read.when, Some(1_700_000_000));
        assert_eq!(read.key.as_deref(), Some("v7"));
    }

    #[test]
    fn lengths_count_bytes_characters_or_utf_16_units() {
        let cases = [
            ("Köln", "v1.2 für alle"),
            ("deploy 🚀", "🎉 fertig | gebaut 🎉"),
            ("|ä|", "|ö|😀|"),
            ("plain", "text"),
            ("日本", "語"),
            ("e\u{301}", "👨‍👩‍👧"),
        ];
        for (title, text) in cases {
            let lengths: [fn(&str) -> usize; 3] = [
                str::len,
                |text| text.chars().count(),
                |text| text.encode_utf16().count(),
            ];
            for length in lengths {
                for more in ["", "|#a:ü,b|t:info", "|p:low|#a:ü,b"] {
                    let (title_length, text_length) = (length(title), length(text));
                    let line = format!("_e{{{title_length},{text_length}}}:{title}|{text}{more}");
                    let read = event(line.as_bytes()).expect(&line);
                    assert_eq!((&*read.what, &*read.data), (title, text), "{line}");
                    assert_eq!(read.tags.contains(&"a:ü".to_owned()), !more.is_empty());
                }
            }
        }
        // A length that fits no unit, or another one for the text.
        for line in [
            "_e{6,13}:Köln|v1.2 für alle",
            "_e{4,14}:Köln|v1.2 für alle",
            "_e{4,12}:Köln|v1.2 für alle",
            "_e{1,1}:🚀|🚀🚀",
            "_e{3,1}:🚀|x",
        ] {
            assert_eq!(event(line.as_bytes()), None, "{line}");
        }
        // Invalid UTF-8 is taken by its bytes.
        let read = event(b"_e{3,2}:a\xff\xf0|\x80b|#x").unwrap();
        assert_eq!(
            (&*read.what, &*read.data),
            ("a\u{fffd}\u{fffd}", "\u{fffd}b")
        );
    }

    #[test]
    fn malformed_events_are_refused() {
        for line in [
            "_e{5,4}:title",
            "_e{0,4}:|text",
            "_e{5,0}:title|",
            "_e{5,4}title|text",
            "_e{5,9}:title|text",
            "_e{5,3}:title|text",
            "_e{5}:title|text",
            "_e{99999999999999999999999,1}:a|b",
            "_e{1,1}:a|b|d:soon",
            "_e{",
        ] {
            assert_eq!(event(line.as_bytes()), None, "{line}");
        }
    }

    /// How many of the reports of `checks` are events.
    fn events(known: &mut Checks, checks: std::ops::Range<u32>, status: Status) -> usize {
        checks
            .filter(|check| known.report(&check.to_le_bytes(), status))
            .count()
    }

    #[test]
    fn only_a_change_of_a_check_is_an_event() {
        let mut known = Checks::new(100);
        assert_eq!(events(&mut known, 0..100, Status::Ok), 100);
        for _ in 0..10 {
            assert_eq!(events(&mut known, 0..100, Status::Ok), 0);
        }
        assert_eq!(events(&mut known, 40..60, Status::Critical), 20);
        assert_eq!(events(&mut known, 40..60, Status::Critical), 0);
        assert_eq!(events(&mut known, 0..100, Status::Ok), 20);
    }

    /// New checks displace those that have not reported for longest; the room stays as it is.
    #[test]
    fn checks_that_come_and_go_displace_no_other() {
        let mut known = Checks::new(100);
        assert_eq!(events(&mut known, 0..30, Status::Ok), 30);
        for round in 1..200 {
            let new = round * 1_000;
            assert_eq!(events(&mut known, new..new + 70, Status::Warning), 70);
            assert_eq!(events(&mut known, 0..30, Status::Ok), 0, "{round}");
            assert!(known.recent.len() + known.earlier.len() <= 200);
        }
        // The first ones are new again.
        assert_eq!(events(&mut known, 1_000..1_070, Status::Warning), 70);
    }

    #[test]
    fn checks_are_an_event_and_a_gauge() {
        let found = check(b"_sc|Redis|2|d:1700000000|h:db1|#env:dev,x|m:no | answer").unwrap();
        assert_eq!(found.status, Status::Critical);
        assert_eq!(found.status.value(), 2.0);
        assert_eq!(found.gauge, b"service_checks.Redis|#host:db1,env:dev,x");
        assert_eq!(
            found.event.tags,
            ["service_check", "critical", "host:db1", "env:dev", "x"]
        );
        assert_eq!(found.event.data, "no ");
        for bad in ["_sc|Redis", "_sc|Redis|4", "_sc||0", "_sc|Redis|0|d:x"] {
            assert_eq!(check(bad.as_bytes()), None, "{bad}");
        }
    }
}
