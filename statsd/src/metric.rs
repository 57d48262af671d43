//! What one sample says: the type, the value, the weight.

/// How the samples of a name are summed up. The same name may live as several kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Kind {
    /// `c` and `m`: added up.
    Counter,
    /// `ms`, `h` and `d`: every value is kept for percentiles.
    Timer,
    /// `g`: the last value, or a sum of differences.
    Gauge,
    /// `s`: distinct members are counted.
    Set,
    /// `a` of python-statsd: the mean of the interval.
    Average,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [
        Self::Counter,
        Self::Timer,
        Self::Gauge,
        Self::Set,
        Self::Average,
    ];

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

/// What a sample does to its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Op {
    /// Adds to a counter (already multiplied by the weight).
    Count,
    /// One value of a timer, with its weight.
    Time,
    /// Sets a gauge.
    Set,
    /// Adds to a gauge.
    Add,
    /// One value of an average.
    Average,
    /// One member of a set; the value's bits say where it lies in the side buffer.
    Member,
}

impl Op {
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Count => Kind::Counter,
            Self::Time => Kind::Timer,
            Self::Set | Self::Add => Kind::Gauge,
            Self::Average => Kind::Average,
            Self::Member => Kind::Set,
        }
    }
}

/// What a value that brings its own time is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PointKind {
    /// python-statsd's `r` and statsite's `kv`: stored under the bare name.
    Raw,
    /// A counter that the client summed up (`|T`).
    Count,
    /// A gauge (`|T`).
    Gauge,
}

/// Why a value, or the line that it stands in, was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
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
}

impl Reject {
    pub(crate) const COUNT: usize = 12;
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
        }
    }
}
