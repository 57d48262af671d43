//! From a tree of values to options, with every value that does not fit reported.
//!
//! 1. What serde would say ("invalid type: integer `10`, expected a string") is never shown: the
//!    [`Refusal`] that a value runs into is worded here.
//! 2. A value that is refused is taken out of the tree and the rest is read again, so that one run
//!    finds them all.
//! 3. Where a list is wanted, a single value is a list of one.
//! 4. What was typed on the command line is taken as text where text is wanted.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use crate::node::{Kind, Node, Path, Place, Step};
use crate::problem::{Complaint, nearest};

/// Reads `root` as a `T`. What does not fit is taken out of `root` and reported to `complaints`;
/// `example` gives the text of a good value for a key, such as its default. `None` if nothing
/// readable is left, which is reported, too.
pub fn read<T: DeserializeOwned>(
    root: &mut Node,
    example: &dyn Fn(&str) -> Option<String>,
    complaints: &mut Vec<Complaint>,
) -> Option<T> {
    loop {
        let refusal = match T::deserialize(Reader(root)) {
            Ok(options) => return Some(options),
            Err(refusal) => refusal,
        };
        let Refusal {
            mut path,
            message,
            accepted,
            missing,
        } = refusal;
        path.reverse();
        let path = Path(path);
        // A key that is missing because its value was refused has been reported already.
        if !(missing && is_damaged(root, &path)) {
            let key = path.key();
            let accepted = match accepted {
                Accepted::Said => None,
                Accepted::Like(other) => example(&key).or(other),
                Accepted::Just(text) => Some(text),
            };
            complaints.push(Complaint {
                place: match root.place_of(&path) {
                    Place::Default => root.place,
                    place => place,
                },
                key,
                message: match accepted {
                    Some(accepted) => format!("{message}, write {accepted}"),
                    None => message,
                },
            });
        }
        if !root.remove(&path.0) {
            return None;
        }
    }
}

fn is_damaged(root: &Node, path: &Path) -> bool {
    let mut node = root;
    for step in &path.0 {
        let below = match (&node.kind, step) {
            (Kind::Table(table), Step::Key(key)) => table.get(key),
            (Kind::List(items), Step::Item(n)) => items.get(*n),
            _ => None,
        };
        match below {
            Some(below) => node = below,
            None => return false,
        }
    }
    node.as_table().is_some_and(|table| table.damaged)
}

/// The reason for which a value is refused, and the accepted form.
#[derive(Debug)]
struct Refusal {
    /// From the value outwards.
    path: Vec<Step>,
    message: String,
    accepted: Accepted,
    /// Whether a key is missing, and no value wrong.
    missing: bool,
}

/// What to write instead.
#[derive(Debug)]
enum Accepted {
    /// The message says it.
    Said,
    /// Something like the default, or else this.
    Like(Option<String>),
    /// This.
    Just(String),
}

impl Refusal {
    fn new(message: String, accepted: Accepted) -> Self {
        Self {
            path: Vec::new(),
            message,
            accepted,
            missing: false,
        }
    }

    fn at(mut self, step: Step) -> Self {
        self.path.push(step);
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

/// A value as it would be written.
fn shown(value: &Unexpected<'_>) -> String {
    match value {
        Unexpected::Bool(yes) => yes.to_string(),
        Unexpected::Unsigned(number) => number.to_string(),
        Unexpected::Signed(number) => number.to_string(),
        Unexpected::Float(number) => float(*number),
        Unexpected::Str(text) => format!("{text:?}"),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a table".to_owned(),
        Unexpected::Other(text) => (*text).to_owned(),
        other => other.to_string(),
    }
}

fn float(number: f64) -> String {
    match number.fract() == 0.0 && number.abs() < 1e15 {
        true => number.to_string(),
        false => format!("{number:?}").to_ascii_lowercase(),
    }
}

/// The range of a type of whole numbers, by the name that serde has for it.
fn range(type_name: &str) -> Option<(i128, i128)> {
    Some(match type_name {
        "u8" => (0, u8::MAX.into()),
        "u16" => (0, u16::MAX.into()),
        "u32" => (0, u32::MAX.into()),
        // A TOML file holds no number beyond 63 bits.
        "u64" | "usize" => (0, i64::MAX.into()),
        "i32" => (i32::MIN.into(), i32::MAX.into()),
        "i64" | "isize" => (i64::MIN.into(), i64::MAX.into()),
        _ => return None,
    })
}

impl de::Error for Refusal {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string(), Accepted::Said)
    }

    fn invalid_type(value: Unexpected<'_>, wanted: &dyn de::Expected) -> Self {
        let wanted = wanted.to_string();
        let is_single = !matches!(value, Unexpected::Seq | Unexpected::Map);
        let value_shown = shown(&value);
        let quoted = match value {
            Unexpected::Str(_) | Unexpected::Seq | Unexpected::Map => None,
            _ => Some(format!("\"{value_shown}\"")),
        };
        match wanted.as_str() {
            "a boolean" => Self::new(
                format!("{value_shown} is neither true nor false"),
                Accepted::Just("true or false".to_owned()),
            ),
            "a string" | "path string" if is_single => Self::new(
                format!("{value_shown} is not text in quotes"),
                Accepted::Like(quoted),
            ),
            "a string" | "path string" => Self::new(
                format!("{value_shown} where text is wanted"),
                Accepted::Like(Some("text in double quotes".to_owned())),
            ),
            "f32" | "f64" => Self::new(
                format!("{value_shown} is not a number"),
                Accepted::Like(None),
            ),
            "a sequence" => Self::new(
                format!("{value_shown} is not a list"),
                Accepted::Like(Some("[...]".to_owned())),
            ),
            name if let Some((least, most)) = range(name) => {
                let wanted = match (least, most) {
                    (0, most) if most < i64::MAX.into() => {
                        format!("a whole number from 0 to {most}")
                    }
                    (0, _) => "a whole number of 0 or more".to_owned(),
                    _ => "a whole number".to_owned(),
                };
                Self::new(
                    format!("{value_shown} is not {wanted}"),
                    Accepted::Like(Some("10".to_owned())),
                )
            }
            name if name.starts_with("struct ") || name == "a map" => Self::new(
                format!("{value_shown} is not a table"),
                Accepted::Like(Some("{KEY = VALUE, ...}".to_owned())),
            ),
            other => Self::new(
                format!("{value_shown} is not {other}"),
                Accepted::Like(None),
            ),
        }
    }

    fn invalid_value(value: Unexpected<'_>, wanted: &dyn de::Expected) -> Self {
        Self::invalid_type(value, wanted)
    }

    fn invalid_length(length: usize, wanted: &dyn de::Expected) -> Self {
        let message = format!("a list of {length} is not {wanted}");
        Self::new(message, Accepted::Like(None))
    }

    fn unknown_variant(word: &str, known: &'static [&'static str]) -> Self {
        Self::new(
            format!("{word:?} is not a choice"),
            Accepted::Just(choice(known)),
        )
    }

    fn unknown_field(key: &str, known: &'static [&'static str]) -> Self {
        let known_keys = match nearest(key, known) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("known are {}", known.join(", ")),
        };
        Self::new(format!("unknown key; {known_keys}"), Accepted::Said)
    }

    fn missing_field(key: &'static str) -> Self {
        Self {
            missing: true,
            ..Self::new(format!("the key {key:?} is missing"), Accepted::Said)
        }
    }

    fn duplicate_field(key: &'static str) -> Self {
        Self::new(format!("the key {key:?} is there twice"), Accepted::Said)
    }
}

/// `"a", "b" or "c"`
fn choice(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    match quoted.as_slice() {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// Reads one value.
struct Reader<'n>(&'n Node);

impl<'n> Reader<'n> {
    /// The text of the value where text is wanted, if it can be had.
    fn text(&self) -> Option<&'n str> {
        match (&self.0.kind, &self.0.typed) {
            (Kind::Text(text), _) => Some(text),
            (Kind::List(_) | Kind::Table(_), _) | (_, None) => None,
            (_, Some(typed)) => Some(typed),
        }
    }
}

impl<'de> Deserializer<'de> for Reader<'de> {
    type Error = Refusal;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match &self.0.kind {
            Kind::Text(text) => visitor.visit_str(text),
            Kind::Integer(number) => visitor.visit_i64(*number),
            Kind::Float(number) => visitor.visit_f64(*number),
            Kind::Bool(yes) => visitor.visit_bool(*yes),
            Kind::Other(text) => Err(de::Error::invalid_type(Unexpected::Other(text), &visitor)),
            Kind::List(items) => visitor.visit_seq(Items { items, next: 0 }),
            Kind::Table(table) => visitor.visit_map(Entries {
                entries: &table.entries,
                next: 0,
            }),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match self.text() {
            Some(text) => visitor.visit_str(text),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.deserialize_str(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        let empty = self.0.typed.as_deref() == Some("");
        match &self.0.kind {
            Kind::List(_) => self.deserialize_any(visitor),
            _ if empty => visitor.visit_seq(Items {
                items: &[],
                next: 0,
            }),
            _ => visitor.visit_seq(Items {
                items: std::slice::from_ref(self.0),
                next: 0,
            }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        // serde would take a list for the fields in their order.
        match &self.0.kind {
            Kind::List(_) => Err(de::Error::invalid_type(Unexpected::Seq, &visitor)),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        match self.text() {
            Some(text) => visitor.visit_enum(Word(text)),
            None => {
                let value = self.deserialize_any(Shown)?;
                Err(Refusal::new(
                    format!("{value} is not a choice"),
                    Accepted::Just(choice(variants)),
                ))
            }
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct
        tuple tuple_struct map identifier ignored_any
    }
}

/// Any value, as it would be written.
struct Shown;

impl<'de> Visitor<'de> for Shown {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<String, E> {
        Ok(float(number))
    }

    fn visit_bool<E: de::Error>(self, yes: bool) -> Result<String, E> {
        Ok(yes.to_string())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<String, A::Error> {
        Ok("a list".to_owned())
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<String, A::Error> {
        Ok("a table".to_owned())
    }
}

struct Items<'n> {
    items: &'n [Node],
    next: usize,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Refusal;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Refusal> {
        let Some(item) = self.items.get(self.next) else {
            return Ok(None);
        };
        let step = Step::Item(self.next);
        self.next += 1;
        let value = seed.deserialize(Reader(item));
        value.map(Some).map_err(|refusal| refusal.at(step))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len() - self.next)
    }
}

struct Entries<'n> {
    entries: &'n [(String, Node)],
    next: usize,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Refusal;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Refusal> {
        let Some((key, _)) = self.entries.get(self.next) else {
            return Ok(None);
        };
        let text: StrDeserializer<'de, Refusal> = key.as_str().into_deserializer();
        let key_read = seed.deserialize(text);
        let step = || Step::Key(key.clone());
        key_read.map(Some).map_err(|refusal| refusal.at(step()))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refusal> {
        let Some((key, value)) = self.entries.get(self.next) else {
            return Err(de::Error::custom("a key has no value"));
        };
        self.next += 1;
        let value = seed.deserialize(Reader(value));
        value.map_err(|refusal| refusal.at(Step::Key(key.clone())))
    }
}

/// The name of a variant without values.
struct Word<'n>(&'n str);

impl<'de> EnumAccess<'de> for Word<'de> {
    type Error = Refusal;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Refusal> {
        let text: StrDeserializer<'de, Refusal> = self.0.into_deserializer();
        Ok((seed.deserialize(text)?, self))
    }
}

impl<'de> VariantAccess<'de> for Word<'de> {
    type Error = Refusal;

    fn unit_variant(self) -> Result<(), Refusal> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, Refusal> {
        Err(de::Error::custom(format!("{:?} takes a value", self.0)))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Refusal> {
        Err(de::Error::custom(format!("{:?} takes values", self.0)))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Refusal> {
        Err(de::Error::custom(format!("{:?} takes values", self.0)))
    }
}
