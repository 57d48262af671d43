//! One declaration per counter: name, help and the number itself.

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that a part of the program reports about itself.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Sets a number that also falls.
    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The number now.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The atomic itself, for a caller that needs the number before its addition.
impl Deref for Counter {
    type Target = AtomicU64;

    fn deref(&self) -> &AtomicU64 {
        &self.0
    }
}

/// One number, read: its name, its meaning, its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The part of the program that reports it, for example `carbon`.
    pub part: &'static str,
    /// As the part names it, for example `cache.size`.
    pub name: String,
    /// The meaning of the number, and what to do when it grows.
    pub help: &'static str,
    /// Whether it only grows; else it is a level.
    pub counts: bool,
    /// The number.
    pub value: f64,
    /// What it was counted for, when it is counted for several things: the kind and which.
    pub label: Option<(&'static str, String)>,
}

impl Reading {
    /// A number that only grows.
    pub fn count(part: &'static str, name: impl Into<String>, help: &'static str, n: u64) -> Self {
        Self {
            part,
            name: name.into(),
            help,
            counts: true,
            value: n as f64,
            label: None,
        }
    }

    /// A number that goes up and down.
    pub fn level(
        part: &'static str,
        name: impl Into<String>,
        help: &'static str,
        value: f64,
    ) -> Self {
        Self {
            part,
            name: name.into(),
            help,
            counts: false,
            value,
            label: None,
        }
    }

    /// The same for one of several things.
    #[must_use]
    pub fn labelled(self, kind: &'static str, which: impl Into<String>) -> Self {
        Self {
            label: Some((kind, which.into())),
            ..self
        }
    }
}

/// Declares the counters of a part of the program: a struct of [`Counter`]s, their names, and their
/// help texts, which are the doc comments. A number that also falls is a `level`. What comes after
/// `beside` belongs to the struct and is not reported.
///
/// ```
/// settings::counters! {
///     /// What the machine counts.
///     pub struct Stats in "machine" {
///         /// Rotations of the wheels.
///         rotations = "rotations";
///         /// Breakdowns. Oil it when this grows.
///         breakdowns = "breakdowns";
///         /// Wheels at present.
///         wheels = level "wheels";
///     }
/// }
///
/// let stats = Stats::default();
/// stats.breakdowns.add(2);
/// let readings = stats.readings();
/// assert_eq!(readings[1].name, "breakdowns");
/// assert_eq!(readings[1].help, "Breakdowns. Oil it when this grows.");
/// assert_eq!(readings[1].value, 2.0);
/// assert!(!readings[2].counts);
/// ```
#[macro_export]
macro_rules! counters {
    (
        $(#[$meta:meta])*
        pub struct $stats:ident in $part:literal {
            $(
                $(#[doc = $help:literal])+
                $field:ident = $($level:ident)? $name:literal;
            )*
            $(beside {
                $($(#[doc = $doc:literal])* $visible:vis $own:ident: $own_type:ty;)*
            })?
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Default)]
        pub struct $stats {
            $(
                $(#[doc = $help])+
                pub $field: $crate::Counter,
            )*
            $($($(#[doc = $doc])* $visible $own: $own_type,)*)?
        }

        impl $stats {
            /// Every number with its name and help, in the order of their declaration.
            pub fn readings(&self) -> Vec<$crate::Reading> {
                vec![$($crate::Reading {
                    part: $part,
                    name: $name.to_owned(),
                    help: concat!($($help),+).trim_ascii(),
                    counts: $crate::only_grows!($($level)?),
                    value: self.$field.get() as f64,
                    label: None,
                },)*]
            }

            /// Name, help and value of every number, in the order of their declaration.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((
                    $name,
                    concat!($($help),+).trim_ascii(),
                    self.$field.get(),
                ),)*]
                .into_iter()
            }
        }
    };
}

/// Whether a number declared like this only grows.
#[doc(hidden)]
#[macro_export]
macro_rules! only_grows {
    () => {
        true
    };
    (level) => {
        false
    };
}
