//! One sample: its number or text, and why a line has none.

use crate::kind::Kind;

/// A number as a line has it, before its type has looked at it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Number {
    /// The value; finite.
    pub(crate) value: f64,
    /// Whether it was written with plus or minus.
    pub(crate) is_signed: bool,
    /// 1 / sample rate.
    pub(crate) weight: f64,
}

/// A number that its type accepts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sample {
    /// What is added, set or kept; a counter's is multiplied by the weight.
    pub(crate) value: f64,
    /// For how many samples it stands.
    pub(crate) weight: f64,
    /// Whether it is added to what the name has, where others replace it.
    pub(crate) is_relative: bool,
}

/// What a line says, item by item.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Item<'a> {
    /// A number to aggregate.
    Sample(Kind, Sample),
    /// A text of which distinct ones are counted.
    Member(Kind, &'a [u8]),
    /// A value that is stored as it is: at its own time, or now.
    Point {
        /// The type.
        kind: Kind,
        /// The value.
        value: f64,
        /// Unix seconds; `None` is now.
        at: Option<f64>,
    },
    /// A value, or a whole line, that is refused.
    Bad(Reject),
}

/// Why a value, or a whole line, is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reject {
    NoColon,
    NoType,
    UnknownType,
    NoValue,
    NotANumber,
    NegativeTime,
    SampleRate,
    Field,
    Timestamp,
    EmptyName,
    LongName,
    Event,
    Packet,
    Unfinished,
}

impl Reject {
    pub(crate) const COUNT: usize = 14;
    pub(crate) const ALL: [Self; Self::COUNT] = [
        Self::NoColon,
        Self::NoType,
        Self::UnknownType,
        Self::NoValue,
        Self::NotANumber,
        Self::NegativeTime,
        Self::SampleRate,
        Self::Field,
        Self::Timestamp,
        Self::EmptyName,
        Self::LongName,
        Self::Event,
        Self::Packet,
        Self::Unfinished,
    ];

    /// The reason as a node of a metric's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::NoColon => "no_colon",
            Self::NoType => "no_type",
            Self::UnknownType => "unknown_type",
            Self::NoValue => "no_value",
            Self::NotANumber => "not_a_number",
            Self::NegativeTime => "negative_time",
            Self::SampleRate => "sample_rate",
            Self::Field => "unknown_field",
            Self::Timestamp => "timestamp",
            Self::EmptyName => "empty_name",
            Self::LongName => "long_name",
            Self::Event => "malformed_event",
            Self::Packet => "malformed_packet",
            Self::Unfinished => "unfinished",
        }
    }
}
