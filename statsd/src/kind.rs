//! The statsd types, by name.
//!
//! [`kinds!`] is the one list: [`Kind`] is made of it here, and
//! [`KINDS`](crate::aggregate::kinds::KINDS) where the types are defined. A new type is a line in
//! the list and a file of that name in `aggregate/`.

/// Hands the list of types to the macro `$declare`: the variant of [`Kind`], and the file in
/// `aggregate/` that defines a struct of the same name.
macro_rules! kinds {
    ($declare:ident) => {
        $declare! {
            Counter => counter,
            Timer => timer,
            Gauge => gauge,
            Set => set,
            Average => average,
            Raw => raw,
            Distribution => distribution,
        }
    };
}
pub(crate) use kinds;

macro_rules! declare {
    ($($kind:ident => $module:ident,)*) => {
        /// A statsd type: how the samples of a name are aggregated. The same name may exist once
        /// per type.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub(crate) enum Kind {
            $(
                #[doc = concat!("See `aggregate/", stringify!($module), ".rs`.")]
                $kind,
            )*
        }
    };
}
kinds!(declare);
