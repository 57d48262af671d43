//! Which destinations of a route a name goes to.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::hash;
use super::member::Member;
use super::ring::{Hash, Ring};
use crate::rules::Faults;
use crate::rules::aggregate::Rule;

/// How a route chooses among its destinations. Names are those of carbon-c-relay's clusters and of
/// carbon's `RELAY_METHOD`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Method {
    /// All of them.
    #[default]
    #[serde(rename = "all", alias = "forward")]
    All,
    /// One by the name; another one while that one is away.
    #[serde(rename = "any_of")]
    AnyOf,
    /// The first that is not away.
    #[serde(rename = "failover")]
    Failover,
    /// carbon-c-relay's `carbon_ch`.
    #[serde(rename = "carbon_ch")]
    CarbonCh,
    /// carbon-c-relay's `fnv1a_ch`.
    #[serde(rename = "fnv1a_ch")]
    Fnv1aCh,
    /// carbon-c-relay's `jump_fnv1a_ch`.
    #[serde(rename = "jump_fnv1a_ch")]
    JumpFnv1aCh,
    /// carbon's `consistent-hashing`.
    #[serde(rename = "consistent-hashing")]
    Consistent,
    /// carbon's `aggregated-consistent-hashing`: by the names of the aggregates that a name feeds.
    #[serde(rename = "aggregated-consistent-hashing")]
    AggregatedConsistent,
    /// carbon's `fast-hashing`.
    #[serde(rename = "fast-hashing")]
    Fast,
    /// carbon's `fast-aggregated-hashing`.
    #[serde(rename = "fast-aggregated-hashing")]
    AggregatedFast,
}

impl Method {
    /// Whether it is one of carbon's, not of carbon-c-relay's.
    pub fn is_carbons(self) -> bool {
        match self {
            Self::Consistent | Self::AggregatedConsistent | Self::Fast | Self::AggregatedFast => {
                true
            }
            Self::All
            | Self::AnyOf
            | Self::Failover
            | Self::CarbonCh
            | Self::Fnv1aCh
            | Self::JumpFnv1aCh => false,
        }
    }

    /// Whether it places names by those of aggregates.
    pub fn is_aggregated(self) -> bool {
        matches!(self, Self::AggregatedConsistent | Self::AggregatedFast)
    }

    /// Whether its destinations depend on which of them are away.
    pub fn is_dynamic(self) -> bool {
        matches!(self, Self::AnyOf | Self::Failover)
    }

    /// Whether it places names on a ring, where replication has a meaning.
    pub fn is_ring(self) -> bool {
        !matches!(self, Self::All | Self::AnyOf | Self::Failover)
    }

    /// The part of the canonical name `name` that it hashes: carbon-c-relay leaves out the tags.
    pub fn key(self, name: &str) -> &str {
        match self.is_carbons() {
            true => name,
            false => name.split(';').next().unwrap_or(name),
        }
    }
}

/// What a placement is made of.
#[derive(Clone, Copy, Debug)]
pub struct Spec<'a> {
    /// The destinations, in order.
    pub members: &'a [Member],
    /// How one is chosen.
    pub method: Method,
    /// Carbon's `ROUTER_HASH_TYPE`; `None`: the method's own.
    pub hash: Option<Hash>,
    /// On how many destinations a ring places a name.
    pub replication: usize,
    /// Whether these are on different hosts (carbon's `DIVERSE_REPLICAS`).
    pub diverse: bool,
}

/// Why there is no such placement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// No destinations.
    #[error("a route without \"destinations\", write \"host:port\"")]
    Empty,
    /// One is there twice.
    #[error("{0} is there twice")]
    Twice(String),
    /// More destinations than are supported.
    #[error("{0} destinations are more than {MAX_MEMBERS}")]
    TooMany(usize),
    /// Carbon's methods do not look at ports.
    #[error(
        "{first} and {second} have the same places: carbon's methods do not look at ports, so that \
             destinations of one host need instances"
    )]
    SamePlaces {
        /// The first.
        first: String,
        /// The other one.
        second: String,
    },
    /// A copy would find no destination.
    #[error(
        "{wanted} copies, but only {found} destinations have places of their own: give each an instance"
    )]
    TooFew {
        /// Copies.
        wanted: usize,
        /// Destinations that have a place.
        found: usize,
    },
    /// No copies.
    #[error("0 copies")]
    NoCopies,
}

/// Most destinations of a route.
pub const MAX_MEMBERS: usize = 256;

/// Chooses destinations for names.
#[derive(Debug)]
pub struct Placement {
    hosts: Vec<String>,
    method: Method,
    /// `None`: the method needs none.
    ring: Option<Ring>,
    replication: usize,
    diverse: bool,
    /// Rules of the aggregated methods.
    rules: Vec<Rule>,
}

impl Placement {
    /// The placement that `spec` describes; `rules` are those of aggregation-rules.conf, for the aggregated
    /// methods.
    ///
    /// # Errors
    /// The destinations cannot be placed as carbon or carbon-c-relay would.
    pub fn new(spec: &Spec<'_>, rules: Vec<Rule>) -> Result<Self, PlacementError> {
        let Spec {
            members,
            method,
            hash,
            replication,
            diverse,
        } = *spec;
        check(spec)?;
        let ring = match method {
            Method::All | Method::AnyOf | Method::Failover => None,
            Method::CarbonCh => Some(Ring::relay(members, Hash::CarbonCh)),
            Method::Fnv1aCh => Some(Ring::relay(members, Hash::Fnv1aCh)),
            Method::JumpFnv1aCh => Some(Ring::jump(members)),
            Method::Consistent | Method::AggregatedConsistent => {
                Some(Ring::carbon(members, hash.unwrap_or(Hash::CarbonCh)))
            }
            Method::Fast | Method::AggregatedFast => {
                Some(Ring::fast(members, hash.unwrap_or(Hash::Mmh3Ch)))
            }
        };
        let found = ring.as_ref().map_or(members.len(), Ring::reach);
        // carbon takes a REPLICATION_FACTOR above the number of destinations for all of them.
        let wanted = replication.min(members.len());
        if found < wanted {
            return Err(PlacementError::TooFew { wanted, found });
        }
        Ok(Self {
            hosts: members.iter().map(|member| member.host.clone()).collect(),
            method,
            ring,
            replication,
            diverse,
            rules,
        })
    }

    /// How it chooses.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The numbers of the destinations for `key` while none is away, in order of preference. For a
    /// series, `key` is [`Method::key`] of its name.
    pub fn place(&self, key: &str) -> Vec<usize> {
        let Some(ring) = &self.ring else {
            let count = match self.method {
                Method::All => self.hosts.len(),
                _ => 1,
            };
            return self.order(key).take(count).collect();
        };
        let mut chosen = Vec::new();
        if !self.method.is_aggregated() {
            self.add(ring, key, &mut chosen);
            return chosen;
        }
        let mut faults = Faults::default();
        for rule in &self.rules {
            if let Some(output) = rule.output(key, &mut faults) {
                self.add(ring, &output, &mut chosen);
            }
        }
        if chosen.is_empty() {
            self.add(ring, key, &mut chosen);
        }
        chosen
    }

    /// All destinations in the order in which a method without a ring prefers them for `key`.
    pub fn order(&self, key: &str) -> impl Iterator<Item = usize> + use<> {
        let count = self.hosts.len();
        let first = match self.method {
            Method::AnyOf => hash::fnv1a_32(key.as_bytes()) as usize % count,
            _ => 0,
        };
        (0..count).map(move |n| (first + n) % count)
    }

    /// Adds the destinations for `key` that `chosen` does not have yet.
    fn add(&self, ring: &Ring, key: &str, chosen: &mut Vec<usize>) {
        let mut hosts = HashSet::new();
        let mut count = 0;
        ring.walk(key, |member| {
            if self.diverse && !hosts.insert(self.hosts[member].as_str()) {
                return true;
            }
            count += 1;
            if !chosen.contains(&member) {
                chosen.push(member);
            }
            count < self.replication
        });
    }

    /// Position and destination of each entry of a ring, for tests.
    #[doc(hidden)]
    pub fn entries(&self) -> Vec<(i64, usize)> {
        match &self.ring {
            Some(Ring::Places { entries, .. }) => entries.clone(),
            _ => Vec::new(),
        }
    }
}

/// Looks at the destinations alone.
fn check(spec: &Spec<'_>) -> Result<(), PlacementError> {
    let members = spec.members;
    if members.is_empty() {
        return Err(PlacementError::Empty);
    }
    if members.len() > MAX_MEMBERS {
        return Err(PlacementError::TooMany(members.len()));
    }
    if spec.replication == 0 {
        return Err(PlacementError::NoCopies);
    }
    for (n, member) in members.iter().enumerate() {
        let before = &members[..n];
        if before.contains(member) {
            return Err(PlacementError::Twice(member.to_string()));
        }
        let same = before
            .iter()
            .find(|other| other.host == member.host && other.instance == member.instance);
        if let Some(first) = same
            && spec.method.is_carbons()
        {
            return Err(PlacementError::SamePlaces {
                first: first.to_string(),
                second: member.to_string(),
            });
        }
    }
    Ok(())
}
