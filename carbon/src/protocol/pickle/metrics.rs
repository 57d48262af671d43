//! The metrics of a pickle: `[(name, (timestamp, value)), …]`, as carbon's senders write them.
//!
//! 1. The whole is a list, a tuple, a set or a dictionary, whose keys are the items; each item is a list
//!    or a tuple of a text and of a list or a tuple of two numbers.
//! 2. A number is an integer, a float, a boolean, or text or bytes that Python's `float()` takes.
//! 3. An item that is not so is counted and skipped; the items around it are taken. A pickle that
//!    cannot be read is counted and skipped whole; the connection goes on.

use super::input::Malformed;
use super::machine::Machine;
use super::value::Value;
use crate::protocol::number;
use crate::protocol::resolver::{At, Reject, Resolver};

/// Takes the metrics of the pickle `frame`.
pub fn read(frame: &[u8], machine: &mut Machine, resolver: &mut Resolver<'_>) {
    match machine.read(frame) {
        Err(Malformed::Code) => resolver.reject(Reject::Code, frame),
        Err(_) => resolver.reject(Reject::Frame, frame),
        Ok(whole) => match machine.members(whole) {
            Some(items) => {
                for item in items {
                    take(*item, machine, frame, resolver);
                }
            }
            None => match machine.elements(whole) {
                Some(items) => items.for_each(|item| take(item, machine, frame, resolver)),
                None => resolver.reject(Reject::Frame, frame),
            },
        },
    }
}

/// Takes one item.
#[inline]
fn take(item: Value, machine: &Machine, frame: &[u8], resolver: &mut Resolver<'_>) {
    let two = |value| match machine.members(value) {
        Some([first, second]) => Some((*first, *second)),
        _ => None,
    };
    let parts = two(item).and_then(|(name, point)| Some((name, two(point)?)));
    let Some((name, (at, value))) = parts else {
        return resolver.reject(Reject::Item, b"");
    };
    let sample = |value| machine.text_or_bytes(value, frame).unwrap_or(b"");
    let Some(value) = number(value, machine, frame) else {
        return resolver.reject(Reject::Value, sample(name));
    };
    let Some(at) = number(at, machine, frame).and_then(At::seconds) else {
        return resolver.reject(Reject::Timestamp, sample(name));
    };
    match machine.text(name, frame) {
        Some(name) => resolver.take(name, at, value),
        None => resolver.reject(Reject::Item, sample(name)),
    }
}

/// The number that `value` is.
#[inline]
fn number(value: Value, machine: &Machine, frame: &[u8]) -> Option<f64> {
    match value {
        Value::Int(integer) => Some(integer as f64),
        Value::Float(float) => Some(float),
        Value::Bool(bool) => Some(f64::from(u8::from(bool))),
        Value::Text(_) | Value::Decoded(_) => number::finite(machine.text(value, frame)?),
        // Python reads bytes as ASCII, where fewer characters are spaces.
        Value::Bytes(_) => {
            let bytes = machine.text_or_bytes(value, frame)?;
            let is_text = |byte: &u8| byte.is_ascii() && !(0x1c..=0x1f).contains(byte);
            let is_short = bytes.len() <= number::MAX_TEXT;
            (is_short && bytes.iter().all(is_text)).then(|| number::finite(bytes))?
        }
        _ => None,
    }
}
