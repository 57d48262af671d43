//! The rings of carbon and carbon-c-relay: which members are responsible for a name, in order of
//! preference.
//!
//! Read from carbon 1.1.10 (`hashing.py`) and carbon-c-relay 3.7.3, and compared with recordings of
//! both. They differ although their methods have the same names:
//!
//! | | carbon | carbon-c-relay |
//! |---|---|---|
//! | a place that is taken | the next free one | the first member by host and instance keeps it |
//! | a place of `fnv1a_ch` | `N-INSTANCE` | `N-INSTANCE`, or `N-HOST:PORT` without an instance |
//! | an instance of digits | text | a number of 32 bits |

use std::cmp::Ordering;
use std::collections::HashSet;

use super::hash;
use super::member::Member;

/// Places that a member has in a ring.
const PLACES: usize = 100;

/// Carbon's `ROUTER_HASH_TYPE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hash {
    /// The first 16 bits of MD5.
    CarbonCh,
    /// FNV-1a, folded to 16 bits.
    Fnv1aCh,
    /// MurmurHash3 with 32 bits.
    Mmh3Ch,
}

impl Hash {
    fn of(self, key: &str) -> i64 {
        match self {
            Self::CarbonCh => i64::from(hash::md5_16(key.as_bytes())),
            Self::Fnv1aCh => i64::from(hash::fnv1a_16(key.as_bytes())),
            Self::Mmh3Ch => i64::from(hash::mmh3(key.as_bytes())),
        }
    }
}

/// How members are found for a name.
#[derive(Clone, Debug)]
pub(super) enum Ring {
    /// Entries of a position and a member, sorted; the hash of names.
    Places {
        entries: Vec<(i64, usize)>,
        hash: Hash,
        /// Carbon ends its walk one entry before a full circle.
        full_turn: bool,
    },
    /// Members by their hash: carbon's fast hashing.
    Sorted { members: Vec<usize>, hash: Hash },
    /// Members in the order of carbon-c-relay's jump hash.
    Jump(Vec<usize>),
}

/// `('10.0.0.1', 'a')`: a node as Python shows it.
fn python(host: &str, instance: Option<&str>) -> String {
    match instance {
        Some(instance) => format!("('{host}', '{instance}')"),
        None => format!("('{host}', None)"),
    }
}

impl Ring {
    /// The ring of carbon's consistent hashing, with `members` added in this order.
    pub(super) fn carbon(members: &[Member], hash: Hash) -> Self {
        let mut entries = Vec::with_capacity(members.len() * PLACES);
        let mut taken = HashSet::new();
        for (n, member) in members.iter().enumerate() {
            let instance = member.instance.as_deref();
            for place in 0..PLACES {
                let key = match hash {
                    Hash::Fnv1aCh => format!("{place}-{}", instance.unwrap_or("None")),
                    _ => format!("{}:{place}", python(&member.host, instance)),
                };
                let mut position = hash.of(&key);
                while !taken.insert(position) {
                    position += 1;
                }
                entries.push((position, n));
            }
        }
        entries.sort_unstable();
        Self::Places {
            entries,
            hash,
            full_turn: false,
        }
    }

    /// Carbon's fast hashing.
    pub(super) fn fast(members: &[Member], hash: Hash) -> Self {
        let position = |member: &Member| hash.of(&python(&member.host, member.instance.as_deref()));
        let mut sorted: Vec<usize> = (0..members.len()).collect();
        sorted.sort_by_key(|n| position(&members[*n]));
        Self::Sorted {
            members: sorted,
            hash,
        }
    }

    /// The ring of carbon-c-relay's `carbon_ch` and `fnv1a_ch`.
    pub(super) fn relay(members: &[Member], hash: Hash) -> Self {
        let instances: Vec<Option<String>> = members.iter().map(relay_instance).collect();
        let mut entries = Vec::with_capacity(members.len() * PLACES);
        for (n, (member, instance)) in members.iter().zip(&instances).enumerate() {
            let instance = instance.as_deref();
            for place in 0..PLACES {
                let key = match (hash, instance) {
                    (Hash::Fnv1aCh, Some(instance)) => format!("{place}-{instance}"),
                    (Hash::Fnv1aCh, None) => format!("{place}-{}:{}", member.host, member.port),
                    _ => format!("{}:{place}", python(&member.host, instance)),
                };
                entries.push((hash.of(&key), n));
            }
        }
        // Stable: of equal members, the first.
        entries.sort_by(|(at, a), (other, b)| {
            let host = || members[*a].host.cmp(&members[*b].host);
            // A member without an instance comes after those that have one.
            let key = |n: usize| (instances[n].is_none(), instances[n].as_deref());
            at.cmp(other)
                .then_with(host)
                .then_with(|| key(*a).cmp(&key(*b)))
        });
        entries.dedup_by_key(|(at, _)| *at);
        Self::Places {
            entries,
            hash,
            full_turn: true,
        }
    }

    /// carbon-c-relay's `jump_fnv1a_ch`.
    pub(super) fn jump(members: &[Member]) -> Self {
        let instances: Vec<Option<String>> = members.iter().map(relay_instance).collect();
        let mut order: Vec<usize> = (0..members.len()).collect();
        order.sort_by(|a, b| match (&instances[*a], &instances[*b]) {
            (Some(a), Some(b)) => match (a.parse::<u64>(), b.parse::<u64>()) {
                (Ok(a), Ok(b)) => a.cmp(&b),
                _ => a.cmp(b),
            },
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        });
        Self::Jump(order)
    }

    /// How many members it can give: those without a place of their own are never found.
    pub(super) fn reach(&self) -> usize {
        match self {
            Self::Places { entries, .. } => {
                let members: HashSet<usize> = entries.iter().map(|(_, member)| *member).collect();
                members.len()
            }
            Self::Sorted { members, .. } | Self::Jump(members) => members.len(),
        }
    }

    /// Calls `each` with the members for `key`, in order of preference, each once, until it returns
    /// false.
    pub(super) fn walk(&self, key: &str, mut each: impl FnMut(usize) -> bool) {
        match self {
            Self::Places {
                entries,
                hash,
                full_turn,
            } => {
                let position = hash.of(key);
                let start = entries.partition_point(|(at, _)| *at < position);
                let steps = entries.len() - usize::from(!full_turn && entries.len() > PLACES);
                let mut seen = Vec::new();
                for (_, member) in entries.iter().cycle().skip(start).take(steps) {
                    if seen.contains(member) {
                        continue;
                    }
                    seen.push(*member);
                    if !each(*member) {
                        return;
                    }
                }
            }
            Self::Sorted { members, hash } => {
                let start = hash.of(key).rem_euclid(members.len().max(1) as i64) as usize;
                let order = members.iter().cycle().skip(start).take(members.len());
                for member in order {
                    if !each(*member) {
                        return;
                    }
                }
            }
            Self::Jump(members) => {
                let mut left = members.clone();
                let mut number = hash::fnv1a_64(key.as_bytes());
                while !left.is_empty() {
                    let member = left.swap_remove(hash::jump(number, left.len()));
                    if !each(member) {
                        return;
                    }
                    number = hash::xorshift(number);
                }
            }
        }
    }
}

/// The instance as carbon-c-relay's configuration reads it: one of digits is a number of 32 bits.
fn relay_instance(member: &Member) -> Option<String> {
    let text = member.instance.as_deref()?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(text.to_owned());
    }
    let digits = text.bytes().map(|byte| u32::from(byte - b'0'));
    let number = digits.fold(0_u32, |number, digit| {
        number.wrapping_mul(10).wrapping_add(digit)
    });
    Some(number.to_string())
}
