//! One of `carbon.routes`, as it is written.

use serde::{Deserialize, Serialize};

use super::placement::Method;
use super::ring::Hash;
use super::wire::Protocol;

/// Whether the points of a route are stored here, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// All of them.
    #[default]
    Always,
    /// Those that the method places on `carbon.relay_self`.
    Placed,
    /// None of them.
    Never,
}

/// One of `carbon.routes`: where the points of some names go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Route {
    /// Python's regular expressions, of which one matches somewhere in the name. Empty: every name.
    #[serde(rename = "match", skip_serializing_if = "Vec::is_empty")]
    pub patterns: Vec<String>,
    /// `host:port` or `host:port:instance`.
    pub destinations: Vec<String>,
    /// How it chooses among them.
    pub method: Method,
    /// Carbon's `ROUTER_HASH_TYPE`, for carbon's methods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<Hash>,
    /// On how many destinations a ring places a name.
    pub replication: u32,
    /// Whether these are on different hosts.
    pub diverse: bool,
    /// What the destinations speak.
    pub protocol: Protocol,
    /// Whether later routes apply to its names, too.
    #[serde(rename = "continue")]
    pub goes_on: bool,
    /// Whether the points are stored here, too.
    pub keep: Keep,
}

impl Default for Route {
    fn default() -> Self {
        Self {
            patterns: Vec::new(),
            destinations: Vec::new(),
            method: Method::default(),
            hash: None,
            replication: 1,
            diverse: false,
            protocol: Protocol::default(),
            goes_on: false,
            keep: Keep::default(),
        }
    }
}
