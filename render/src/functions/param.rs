//! What a function takes: name, kind, default.

/// The kind of a parameter, as `/functions` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A list of series.
    SeriesList,
    /// Lists of series, from `mapSeries`.
    SeriesLists,
    /// Any number.
    Float,
    /// A whole number.
    Integer,
    /// A whole number, or infinity.
    IntOrInf,
    /// A number of points, or a time such as `"5min"`.
    IntOrInterval,
    /// A time such as `"1h"`.
    Interval,
    /// A timestamp, absolute or relative.
    Date,
    /// Text.
    String,
    /// True or false.
    Boolean,
    /// The place of a node in a name, from 0; negative ones count from the end.
    Node,
    /// A node, or the name of a tag.
    NodeOrTag,
    /// The name of a tag.
    Tag,
    /// One of [`crate::aggregate::NAMES`].
    AggFunc,
    /// An aggregate or a function that adds up series.
    AggOrSeriesFunc,
    /// Anything.
    Any,
}

impl Kind {
    /// The name of the kind in `/functions`.
    pub fn name(self) -> &'static str {
        match self {
            Self::SeriesList => "seriesList",
            Self::SeriesLists => "seriesLists",
            Self::Float => "float",
            Self::Integer => "integer",
            Self::IntOrInf => "intOrInf",
            Self::IntOrInterval => "intOrInterval",
            Self::Interval => "interval",
            Self::Date => "date",
            Self::String => "string",
            Self::Boolean => "boolean",
            Self::Node => "node",
            Self::NodeOrTag => "nodeOrTag",
            Self::Tag => "tag",
            Self::AggFunc => "aggFunc",
            Self::AggOrSeriesFunc => "aggOrSeriesFunc",
            Self::Any => "any",
        }
    }
}

/// The value of a parameter that is not given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Default {
    /// It must be given.
    Required,
    /// Nothing in its place.
    Absent,
    /// A whole number.
    Integer(i64),
    /// Any number.
    Float(f64),
    /// Text.
    Text(&'static str),
    /// True or false.
    Boolean(bool),
}

/// A parameter.
#[derive(Clone, Copy, Debug)]
pub struct Param {
    /// Its name: arguments may be given by it.
    pub name: &'static str,
    /// Another name that is accepted for it, where Graphite's documentation and code differ.
    pub also: Option<&'static str>,
    /// Its kind.
    pub kind: Kind,
    /// What stands for it when it is not given.
    pub default: Default,
    /// Whether `/functions` calls it required, which is not always true.
    pub listed_required: bool,
    /// Whether `/functions` shows the default, which it does not always.
    pub listed_default: bool,
    /// Whether it may be repeated (or left out).
    pub multiple: bool,
    /// The only values that are meant, for editors to offer; others are let through.
    pub options: &'static [&'static str],
    /// Options that are no text, as JSON; they are listed first.
    pub odd_options: &'static [&'static str],
    /// Values that an editor may offer, as JSON.
    pub suggestions: &'static [&'static str],
}

impl Param {
    /// A required parameter.
    pub const fn new(name: &'static str, kind: Kind) -> Self {
        Self {
            name,
            also: None,
            kind,
            default: Default::Required,
            listed_required: true,
            listed_default: true,
            multiple: false,
            options: &[],
            odd_options: &[],
            suggestions: &[],
        }
    }

    /// A list of series.
    pub const fn series(name: &'static str) -> Self {
        Self::new(name, Kind::SeriesList)
    }

    /// A number.
    pub const fn float(name: &'static str) -> Self {
        Self::new(name, Kind::Float)
    }

    /// A whole number.
    pub const fn integer(name: &'static str) -> Self {
        Self::new(name, Kind::Integer)
    }

    /// Text.
    pub const fn string(name: &'static str) -> Self {
        Self::new(name, Kind::String)
    }

    /// True or false.
    pub const fn boolean(name: &'static str) -> Self {
        Self::new(name, Kind::Boolean)
    }

    /// The name of an aggregate.
    pub const fn aggregate(name: &'static str) -> Self {
        Self::new(name, Kind::AggFunc)
    }

    /// Not required; nothing stands for it.
    pub const fn optional(mut self) -> Self {
        self.default = Default::Absent;
        self.listed_required = false;
        self
    }

    /// Not required; this stands for it.
    pub const fn or(mut self, default: Default) -> Self {
        self.default = default;
        self.listed_required = false;
        self
    }

    /// May be repeated, or left out.
    pub const fn repeated(mut self) -> Self {
        self.multiple = true;
        self.default = Default::Absent;
        self
    }

    /// May be left out, though `/functions` calls it required.
    pub const fn listed_required(mut self) -> Self {
        self.listed_required = true;
        self
    }

    /// `/functions` does not show the default.
    pub const fn unlisted_default(mut self) -> Self {
        self.listed_default = false;
        self
    }

    /// Accepts another name too.
    pub const fn also(mut self, name: &'static str) -> Self {
        self.also = Some(name);
        self
    }

    /// Names the values that are meant.
    pub const fn options(mut self, options: &'static [&'static str]) -> Self {
        self.options = options;
        self
    }

    /// Names options that are no text, each as JSON.
    pub const fn odd_options(mut self, options: &'static [&'static str]) -> Self {
        self.odd_options = options;
        self
    }

    /// Names values to offer, each as JSON.
    pub const fn suggestions(mut self, suggestions: &'static [&'static str]) -> Self {
        self.suggestions = suggestions;
        self
    }
}
