//! `carbon.routes` and the keys around it, checked.

use std::net::IpAddr;
use std::path::Path as FilePath;

use settings::{Path, Problem, Step};

use super::member::{FORM, Member};
use super::placement::{Placement, PlacementError, Spec};
use super::route::{Keep, Route};
use super::rules::{self, RelayRules};
use super::wire::Protocol;
use crate::conf::{Missing, load};
use crate::options::Options;
use crate::pattern::Pattern;
use crate::rules::aggregate::rule::{self, Rule};

/// A route that can be used.
#[derive(Debug)]
pub(super) struct Ready {
    /// `None`: every name.
    pub(super) patterns: Option<Vec<Pattern>>,
    pub(super) placement: Placement,
    pub(super) members: Vec<Member>,
    pub(super) protocol: Protocol,
    pub(super) goes_on: bool,
    pub(super) keep: Keep,
}

/// Everything that the options say about routes.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) routes: Vec<Ready>,
    pub(super) rules: Option<RelayRules>,
    pub(super) own: Option<Member>,
}

/// What is wrong with the keys of the relay in `options`, below `carbon`.
pub fn check(options: &Options) -> Vec<Problem> {
    Plan::read(options).err().unwrap_or_default()
}

fn say(path: impl Into<Path>, message: impl Into<String>) -> Problem {
    Problem {
        path: path.into(),
        message: message.into(),
    }
}

/// `routes[n].key`, or `routes[n].key[item]`.
fn place(n: usize, key: &str, item: Option<usize>) -> Path {
    let mut path = Path::from(("routes", n));
    path.0.push(Step::Key(key.to_owned()));
    path.0.extend(item.map(Step::Item));
    path
}

impl Plan {
    /// Reads the routes and the files that they need.
    pub(super) fn read(options: &Options) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let own = match options.relay_self.as_str() {
            "" => None,
            text => match text.parse::<Member>() {
                Ok(own) => Some(own),
                Err(error) => {
                    problems.push(say("relay_self", format!("{error}, write {FORM}")));
                    None
                }
            },
        };
        let aggregates = aggregates(options, &mut problems);
        let mut plan = Self {
            routes: Vec::new(),
            rules: relay_rules(options, &mut problems),
            own,
        };
        for (n, route) in options.routes.iter().enumerate() {
            let reader = Reader {
                options,
                n,
                route,
                own: plan.own.as_ref(),
            };
            reader.look_at_others(&mut problems);
            plan.routes.extend(reader.read(&aggregates, &mut problems));
        }
        let is_named = |own: &Member| plan.routes.iter().any(|route| route.members.contains(own));
        if let Some(own) = &plan.own
            && problems.is_empty()
            && !is_named(own)
        {
            let message = format!("{own} is among the destinations of no route: it has no effect");
            problems.push(say("relay_self", message));
        }
        match problems.is_empty() {
            true => Ok(plan),
            false => Err(problems),
        }
    }
}

/// The rules for the aggregated methods.
fn aggregates(options: &Options, problems: &mut Vec<Problem>) -> Vec<String> {
    const KEY: &str = "relay_aggregation_rules";
    let path = options.relay_aggregation_rules.as_str();
    let needs = |route: &Route| route.method.is_aggregated();
    if path.is_empty() {
        if let Some(n) = options.routes.iter().position(needs) {
            let message = "it places names by aggregates: set carbon.relay_aggregation_rules to carbon's \
                           aggregation-rules.conf";
            problems.push(say(place(n, "method", None), message));
        }
        return Vec::new();
    }
    if !options.routes.iter().any(needs) {
        let message = "no route has an aggregated method: it has no effect";
        problems.push(say(KEY, message));
    }
    match load(FilePath::new(path), Missing::Refused, rule::parse) {
        Ok(loaded) => loaded.value.into_iter().map(|rule| rule.text).collect(),
        Err(found) => {
            problems.extend(found.iter().map(|problem| say(KEY, problem.to_string())));
            Vec::new()
        }
    }
}

fn relay_rules(options: &Options, problems: &mut Vec<Problem>) -> Option<RelayRules> {
    const KEY: &str = "relay_rules";
    let path = options.relay_rules.as_str();
    if path.is_empty() {
        if !options.relay_destinations.is_empty() {
            let message = "it limits the destinations of carbon.relay_rules, which is empty";
            problems.push(say("relay_destinations", message));
        }
        return None;
    }
    let mut rules = match load(FilePath::new(path), Missing::Refused, rules::parse) {
        Ok(loaded) => loaded.value,
        Err(found) => {
            problems.extend(found.iter().map(|problem| say(KEY, problem.to_string())));
            return None;
        }
    };
    let mut configured = Vec::new();
    for (n, text) in options.relay_destinations.iter().enumerate() {
        match text.parse::<Member>() {
            Ok(member) => configured.push(member),
            Err(error) => {
                problems.push(say(
                    ("relay_destinations", n),
                    format!("{error}, write {FORM}"),
                ));
            }
        }
    }
    if !configured.is_empty()
        && let Err(message) = rules::limit(&mut rules, &configured)
    {
        problems.push(say(KEY, format!("{path}: {message}")));
    }
    for member in rules.iter().flat_map(|rule| &rule.destinations) {
        if let Some(listener) = own_listener(options, member) {
            problems.push(say(KEY, format!("{path}: {}", to_itself(member, listener))));
        }
    }
    Some(rules)
}

fn to_itself(member: &Member, key: &str) -> String {
    format!("{member} is this server's own carbon.{key}: points would go round for ever")
}

/// The key of the receiver of this server that `member` is, as far as that can be seen.
fn own_listener(options: &Options, member: &Member) -> Option<&'static str> {
    let ip = match member.host.as_str() {
        "localhost" => IpAddr::from([127, 0, 0, 1]),
        host => host.parse().ok()?,
    };
    let lists = [
        ("line_tcp", &options.line_tcp),
        ("pickle", &options.pickle),
        ("relay_line_tcp", &options.relay_line_tcp),
    ];
    let is_it = |text: &String| {
        let Ok(address) = text
            .replace("localhost", "127.0.0.1")
            .parse::<std::net::SocketAddr>()
        else {
            return false;
        };
        let same_ip = address.ip() == ip || address.ip().is_unspecified() && ip.is_loopback();
        address.port() == member.port && same_ip
    };
    let found = lists.into_iter().find(|(_, list)| list.iter().any(is_it));
    found.map(|(key, _)| key)
}

/// Reads one route.
struct Reader<'a> {
    options: &'a Options,
    n: usize,
    route: &'a Route,
    own: Option<&'a Member>,
}

impl Reader<'_> {
    /// Compares the route with those before it.
    fn look_at_others(&self, problems: &mut Vec<Problem>) {
        let before = &self.options.routes[..self.n];
        let path = || Path::from(("routes", self.n));
        if let Some(first) = before.iter().position(|other| other == self.route) {
            let message = format!("it is the same as route {}", first + 1);
            problems.push(say(path(), message));
            return;
        }
        let all = |route: &Route| route.patterns.is_empty() && !route.goes_on;
        let same = |route: &Route| route.patterns == self.route.patterns && !route.goes_on;
        if let Some(first) = before.iter().position(|route| all(route) || same(route)) {
            let message = format!(
                "no name reaches it: route {} takes all of its names, write \"continue = true\" there, or \
                 change the order",
                first + 1
            );
            problems.push(say(path(), message));
        }
    }

    fn read(&self, aggregates: &[String], problems: &mut Vec<Problem>) -> Option<Ready> {
        let before = problems.len();
        let members = self.members(problems);
        let patterns = self.patterns(problems);
        self.look_at_method(problems);
        self.look_at_keep(&members, problems);
        if problems.len() > before {
            return None;
        }
        let route = self.route;
        let spec = Spec {
            members: &members,
            method: route.method,
            hash: route.hash,
            replication: route.replication as usize,
            diverse: route.diverse,
        };
        let mut findings = crate::conf::Findings::new(FilePath::new(""));
        let rules: Vec<Rule> = match route.method.is_aggregated() {
            true => rule::parse(&aggregates.join("\n"), &mut findings),
            false => Vec::new(),
        };
        match Placement::new(&spec, rules) {
            Ok(placement) => Some(Ready {
                patterns,
                placement,
                members,
                protocol: route.protocol,
                goes_on: route.goes_on,
                keep: route.keep,
            }),
            Err(error) => {
                let path = match error {
                    // The key may not be there.
                    PlacementError::Empty => Path::from(("routes", self.n)),
                    PlacementError::NoCopies => place(self.n, "replication", None),
                    _ => place(self.n, "destinations", None),
                };
                problems.push(say(path, error.to_string()));
                None
            }
        }
    }

    fn members(&self, problems: &mut Vec<Problem>) -> Vec<Member> {
        let mut members = Vec::new();
        let at = |item| place(self.n, "destinations", Some(item));
        for (item, text) in self.route.destinations.iter().enumerate() {
            match text.parse::<Member>() {
                Ok(member) => {
                    let is_own = self.own == Some(&member);
                    if let Some(key) = own_listener(self.options, &member)
                        && !is_own
                    {
                        problems.push(say(at(item), to_itself(&member, key)));
                    }
                    members.push(member);
                }
                Err(error) => problems.push(say(at(item), format!("{error}, write {FORM}"))),
            }
        }
        members
    }

    fn patterns(&self, problems: &mut Vec<Problem>) -> Option<Vec<Pattern>> {
        let mut patterns = Vec::new();
        for (item, text) in self.route.patterns.iter().enumerate() {
            match Pattern::new(text) {
                Ok(pattern) => patterns.push(pattern),
                Err(error) => {
                    problems.push(say(place(self.n, "match", Some(item)), error.to_string()));
                }
            }
        }
        (!self.route.patterns.is_empty()).then_some(patterns)
    }

    fn look_at_method(&self, problems: &mut Vec<Problem>) {
        let Route {
            method,
            hash,
            replication,
            diverse,
            ..
        } = *self.route;
        let mut no_effect = |key: &str, of: &str| {
            let message = format!("it has no effect on this method: remove it, or choose {of}");
            problems.push(say(place(self.n, key, None), message));
        };
        if replication != 1 && !method.is_ring() {
            no_effect("replication", "one that has a ring, such as \"carbon_ch\"");
        }
        if diverse && !method.is_ring() {
            no_effect("diverse", "one that has a ring, such as \"carbon_ch\"");
        }
        if hash.is_some() && !method.is_carbons() {
            no_effect("hash", "one of carbon's, such as \"consistent-hashing\"");
        }
    }

    fn look_at_keep(&self, members: &[Member], problems: &mut Vec<Problem>) {
        let is_named = self.own.is_some_and(|own| members.contains(own));
        let message = match self.route.keep {
            Keep::Placed if !is_named => {
                "it needs carbon.relay_self to be the one of the destinations that is this server"
            }
            Keep::Never if is_named => {
                "points that are placed on carbon.relay_self would be lost, write \"placed\""
            }
            _ => return,
        };
        problems.push(say(place(self.n, "keep", None), message));
    }
}
