//! One declaration per option: name, type, default, help, and check.

use crate::node::{Path, Step};
use crate::problem::{Problem, Problems, is_address};
use crate::units::{ByteSize, Span};

/// One configuration key: its name within its section, and the comment that `plumbago config`
/// prints above it.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Name below the section, for example `flush_interval` in `[statsd]`.
    pub name: &'static str,
    /// Meaning, unit, what 0 or empty means: the doc comment of the field.
    pub help: &'static str,
}

/// Takes the problems that the check of one option finds.
#[derive(Debug)]
pub struct Checked<'p> {
    name: &'static str,
    problems: &'p mut Problems,
}

impl<'p> Checked<'p> {
    /// Reports about the option called `name`.
    pub fn new(name: &'static str, problems: &'p mut Problems) -> Self {
        Self { name, problems }
    }

    /// Reports a problem with the value, and the accepted form.
    pub fn refuse(&mut self, wrong: impl AsRef<str>, accepted: &str) {
        self.problems.refuse(self.name, wrong, accepted);
    }

    /// Reports a problem with element `n` of the value, and the accepted form.
    pub fn refuse_item(&mut self, n: usize, wrong: impl AsRef<str>, accepted: &str) {
        self.problems.refuse((self.name, n), wrong, accepted);
    }

    /// Reports a sentence that already says what to do.
    pub fn say(&mut self, message: impl Into<String>) {
        self.problems.say(self.name, message);
    }

    /// A sentence about the value at `below`, from the option on.
    pub fn say_at(&mut self, below: impl IntoIterator<Item = Step>, message: impl Into<String>) {
        let mut path = Path::from(self.name);
        path.0.extend(below);
        self.problems.push(Problem {
            path,
            message: message.into(),
        });
    }
}

/// A check that wants HOST:PORT in each element; `example` is shown when one is not.
pub fn addresses(example: &'static str) -> impl Fn(&Vec<String>, &mut Checked<'_>) {
    move |list, checked| {
        for (n, text) in list.iter().enumerate() {
            if !is_address(text) {
                let wrong = format!("{text:?} is not an address");
                checked.refuse_item(n, wrong, &format!("{example:?}"));
            }
        }
    }
}

/// A value that can be too small or too large.
pub trait Shown: PartialOrd {
    /// The value as it is written in a file.
    fn shown(&self) -> String;
}

macro_rules! shown {
    ($($type:ty => $pattern:literal,)*) => {
        $(impl Shown for $type {
            fn shown(&self) -> String {
                format!($pattern, self)
            }
        })*
    };
}

shown! {
    u32 => "{}",
    u64 => "{}",
    usize => "{}",
    i64 => "{}",
    Span => "\"{}\"",
    ByteSize => "\"{}\"",
}

/// A check that wants `least` or more.
pub fn at_least<T: Shown>(least: T) -> impl Fn(&T, &mut Checked<'_>) {
    move |value, checked| {
        if *value < least {
            let wrong = format!("{} is too small", value.shown());
            checked.refuse(wrong, &format!("{} or more", least.shown()));
        }
    }
}

/// A check that wants a value from `least` to `most`.
pub fn between<T: Shown>(least: T, most: T) -> impl Fn(&T, &mut Checked<'_>) {
    let at_least = at_least(least);
    move |value, checked| {
        at_least(value, checked);
        if *value > most {
            let wrong = format!("{} is too large", value.shown());
            checked.refuse(wrong, &format!("{} or less", most.shown()));
        }
    }
}

/// Declares the options of a section: a struct with its defaults, its keys and its check.
///
/// Each option is a field with a doc comment, which `plumbago config` prints above the key; its
/// type and default; and, after `=>`, a function that looks at its value. A key that is not a valid
/// Rust name follows the field in brackets. Fields after `beside` are set by the program and have no
/// key.
///
/// ```
/// use settings::Span;
/// use settings::options::{Checked, at_least};
///
/// fn even(value: &u32, checked: &mut Checked<'_>) {
///     if value % 2 == 1 {
///         checked.refuse(format!("{value} is odd"), &(value + 1).to_string());
///     }
/// }
///
/// settings::options! {
///     /// `[machine]`.
///     #[derive(PartialEq, Eq)]
///     pub struct Options {
///         /// How many wheels it has.
///         wheels: u32 = 4 => even;
///         /// How often it is oiled.
///         oiled: Span = Span::seconds(60) => at_least(Span::seconds(1));
///         /// What sort of machine it is; empty for any.
///         sort("type"): String = String::new();
///     }
/// }
///
/// assert_eq!(Options::KEYS[0].help.trim(), "How many wheels it has.");
/// assert_eq!(Options::KEYS[2].name, "type");
/// let mut problems = settings::Problems::default();
/// let options = Options { wheels: 3, ..Options::default() };
/// options.check(&mut problems);
/// assert_eq!(problems.iter().next().unwrap().message, "3 is odd, write 4");
/// ```
#[macro_export]
macro_rules! options {
    (
        $(#[$meta:meta])*
        pub struct $options:ident {
            $(
                $(#[doc = $help:literal])+
                $field:ident $(($key:literal))? : $type:ty = $default:expr $(=> $check:expr)?;
            )*
            $(beside {
                $($(#[doc = $doc:literal])+ $own:ident: $own_type:ty = $own_default:expr;)*
            })?
        }
    ) => {
        $(#[$meta])*
        #[derive(
            Clone, Debug, $crate::serde::Serialize, $crate::serde::Deserialize,
        )]
        #[serde(crate = "settings::serde", default, deny_unknown_fields)]
        pub struct $options {
            $(
                $(#[doc = $help])+
                $(#[serde(rename = $key)])?
                pub $field: $type,
            )*
            $($(
                $(#[doc = $doc])+
                #[serde(skip)]
                pub $own: $own_type,
            )*)?
        }

        impl Default for $options {
            fn default() -> Self {
                Self {
                    $($field: $default,)*
                    $($($own: $own_default,)*)?
                }
            }
        }

        impl $options {
            /// The keys of the section, in the order in which they are printed.
            pub const KEYS: &'static [$crate::Key] = &[$(
                $crate::Key {
                    name: $crate::key_name!($field $($key)?),
                    help: concat!($($help, "\n"),+),
                },
            )*];

            /// Looks for values that would not start or would misbehave.
            pub fn check(&self, problems: &mut $crate::Problems) {
                let _ = &problems;
                $($crate::check_option! {
                    &self.$field, problems, $crate::key_name!($field $($key)?) $(, $check)?
                })*
            }
        }
    };
}

/// The name of an option in a file.
#[doc(hidden)]
#[macro_export]
macro_rules! key_name {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $key:literal) => {
        $key
    };
}

/// Looks at one option, if it has a check.
#[doc(hidden)]
#[macro_export]
macro_rules! check_option {
    ($value:expr, $problems:ident, $name:expr) => {};
    ($value:expr, $problems:ident, $name:expr, $check:expr) => {
        ($check)($value, &mut $crate::options::Checked::new($name, $problems));
    };
}
