//! From verdicts to findings: what belongs together, which direction is worse, and a sentence for it.

use std::collections::BTreeMap;

use super::decide::Verdict;
use super::windows::{Scratch, polarity};

/// Which way of changing is worse for a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// An increase is worse: errors, latency.
    UpIsWorse,
    /// A decrease is worse: orders, availability.
    DownIsWorse,
    /// The name does not say.
    Unknown,
}

/// The smallest change that matters to an operator.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Least {
    /// A share of the level before: 0.05 for 5 %.
    Share(f64),
    /// An amount in the unit of the series.
    Amount(f64),
}

/// What is known of a series of the deploy's scope beside its values.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its name.
    pub name: &'a str,
    /// Which way of changing is worse.
    pub direction: Direction,
    /// The smallest change that matters, if there is one.
    pub least: Option<Least>,
}

/// Words of names whose increase is worse. A word that ends in `*` stands for all that begin so.
const WORSE_UP: &[&str] = &[
    "err",
    "error",
    "errors",
    "fail",
    "failed",
    "failure",
    "failures",
    "exception",
    "exceptions",
    "timeout",
    "timeouts",
    "5xx",
    "4xx",
    "rejected",
    "drop",
    "dropped",
    "drops",
    "retries",
    "retry",
    "retransmit",
    "retransmits",
    "latency",
    "lat",
    "duration",
    "time",
    "responsetime",
    "elapsed",
    "wait",
    "lag",
    "backlog",
    "queue",
    "depth",
    "pending",
    "upper",
    "gc",
    "pause",
    "oom",
    "restart",
    "restarts",
    "crash",
    "crashes",
    "swap",
    "load",
    "throttled",
    "eviction",
    "evictions",
    "miss",
    "misses",
    "slow",
];

/// Words of names whose decrease is worse.
const WORSE_DOWN: &[&str] = &[
    "success",
    "ok",
    "2xx",
    "hitrate",
    "hitratio",
    "hits",
    "availability",
    "available",
    "uptime",
    "up",
    "healthy",
    "orders",
    "sales",
    "revenue",
    "signup",
    "signups",
    "login",
    "logins",
    "conversion",
    "conversions",
    "throughput",
    "apdex",
    "free",
    "idle",
];

/// Pairs of words that mean what one word of the lists means.
const PAIRS: &[(&str, &str, Direction)] = &[
    ("response", "time", Direction::UpIsWorse),
    ("hit", "rate", Direction::DownIsWorse),
    ("hit", "ratio", Direction::DownIsWorse),
];

/// Which way of changing is worse for the series `name`. The last nodes of the name decide.
pub fn direction(name: &str) -> Direction {
    let nodes = name.split(';').next().unwrap_or(name).rsplit('.');
    nodes
        .map(direction_of_node)
        .find(|direction| *direction != Direction::Unknown)
        .unwrap_or(Direction::Unknown)
}

fn direction_of_node(node: &str) -> Direction {
    let words: Vec<String> = node
        .split(['_', '-'])
        .map(str::to_ascii_lowercase)
        .collect();
    let pair = |(first, second, _): &&(&str, &str, Direction)| {
        words
            .windows(2)
            .any(|two| two[0] == *first && two[1] == *second)
    };
    let pair = PAIRS.iter().find(pair).map(|(_, _, direction)| *direction);
    let any = |list: &[&str]| words.iter().any(|word| list.contains(&word.as_str()));
    // A name such as `queue_free` says free last: the good word wins.
    if pair == Some(Direction::DownIsWorse) || any(WORSE_DOWN) {
        Direction::DownIsWorse
    } else if pair.is_some() || any(WORSE_UP) || words.iter().any(|word| is_bad_number(word)) {
        Direction::UpIsWorse
    } else {
        Direction::Unknown
    }
}

/// `500` to `509`, and percentiles from `p10` on.
fn is_bad_number(word: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let status = word.len() == 3 && word.starts_with("50") && digits(word);
    let percentile = word
        .strip_prefix('p')
        .is_some_and(|rest| rest.len() > 1 && digits(rest));
    status || percentile
}

/// Whether a verdict is worse (-1), better (1) or neither (0), by the direction of its series.
pub fn worth(verdict: &Verdict, direction: Direction) -> i8 {
    let up = verdict.trend as i8;
    match direction {
        Direction::UpIsWorse => -up,
        Direction::DownIsWorse => up,
        Direction::Unknown => 0,
    }
}

/// A changed series, as far as its group depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Finding<'a> {
    /// The caller's number for it.
    pub index: usize,
    /// The name of the series.
    pub name: &'a str,
    /// 1 for a rise, -1 for a fall.
    pub trend: f64,
    /// It stopped or began to report.
    pub presence: bool,
    /// The size of the change over the series' own largest usual change.
    pub ratio: f64,
    /// It changed in the direction that is worse.
    pub worse: bool,
    /// Its changes at the placebos.
    pub placebos: &'a [f64],
}

impl<'a> Finding<'a> {
    /// What `verdict` says about `subject`.
    pub fn new(index: usize, subject: &Subject<'a>, verdict: &'a Verdict) -> Self {
        Self {
            index,
            name: subject.name,
            trend: verdict.trend,
            presence: verdict.presence,
            ratio: verdict.ratio,
            worse: worth(verdict, subject.direction) < 0,
            placebos: &verdict.placebos,
        }
    }

    /// Its place in the order of findings: worse ones count twice.
    fn weight(&self) -> f64 {
        self.ratio * if self.worse { 2.0 } else { 1.0 }
    }
}

/// Groups findings that are one change: series whose names differ only in host or number, or whose
/// changes go together at the placebos (correlation of at least 0.7). The strongest group is first, worse ones
/// count twice; each group begins with its strongest series. The answer holds the findings' `index`.
pub fn group(found: &[Finding<'_>]) -> Vec<Vec<usize>> {
    const TOGETHER: f64 = 0.7;
    let patterns: Vec<String> = found.iter().map(|one| without_host(one.name)).collect();
    let profiles: Vec<Vec<f64>> = found.iter().map(|one| profile(one.placebos)).collect();
    let mut parent: Vec<usize> = (0..found.len()).collect();
    fn root(parent: &[usize], mut at: usize) -> usize {
        while parent[at] != at {
            at = parent[at];
        }
        at
    }
    for a in 0..found.len() {
        for b in 0..a {
            let (root_a, root_b) = (root(&parent, a), root(&parent, b));
            if root_a == root_b {
                continue;
            }
            let (one, other) = (&found[a], &found[b]);
            let alike = patterns[a] == patterns[b]
                && one.trend == other.trend
                && one.presence == other.presence;
            let together = || {
                let pairs = profiles[a].iter().zip(&profiles[b]);
                let correlation: f64 = pairs.map(|(a, b)| a * b).sum();
                correlation.abs() >= TOGETHER && polarity(correlation) == one.trend * other.trend
            };
            if alike || together() {
                parent[root_a] = root_b;
            }
        }
    }
    let mut groups: BTreeMap<usize, Vec<&Finding<'_>>> = BTreeMap::new();
    for (at, one) in found.iter().enumerate() {
        groups.entry(root(&parent, at)).or_default().push(one);
    }
    let mut groups: Vec<(f64, Vec<usize>)> = groups
        .into_values()
        .map(|mut group| {
            let strongest = group.iter().map(|one| one.weight()).fold(0.0, f64::max);
            group.sort_by(|a, b| b.ratio.total_cmp(&a.ratio));
            (strongest, group.iter().map(|one| one.index).collect())
        })
        .collect();
    groups.sort_by(|a, b| b.0.total_cmp(&a.0));
    groups.into_iter().map(|(_, group)| group).collect()
}

/// `name` with `*` for each node but the last that holds a digit, and `#` for further digits.
fn without_host(name: &str) -> String {
    let mut nodes: Vec<&str> = name.split('.').collect();
    let last = nodes.len() - 1;
    for node in &mut nodes[..last] {
        if node.bytes().any(|byte| byte.is_ascii_digit()) {
            *node = "*";
        }
    }
    let mut pattern = String::new();
    for character in nodes.join(".").chars() {
        if !character.is_ascii_digit() {
            pattern.push(character);
        } else if !pattern.ends_with('#') {
            pattern.push('#');
        }
    }
    pattern
}

/// Changes at the placebos over their usual size, cut at 6 and of length 1: products are correlations.
fn profile(changes: &[f64]) -> Vec<f64> {
    let known = |change: &f64| if change.is_finite() { *change } else { 0.0 };
    let mut profile: Vec<f64> = changes.iter().map(known).collect();
    let sizes: Vec<f64> = profile.iter().map(|change| change.abs()).collect();
    let usual = Scratch::default().median(&sizes);
    let usual = if usual.is_nan() { 0.0 } else { usual } + 1e-12;
    for change in &mut profile {
        *change = (*change / usual).clamp(-6.0, 6.0);
    }
    let length = profile
        .iter()
        .map(|change| change * change)
        .sum::<f64>()
        .sqrt();
    for change in &mut profile {
        *change /= length.max(1e-12);
    }
    profile
}

/// A sentence about a finding of the series `name`, for people.
pub fn words(name: &str, verdict: &Verdict) -> String {
    let rarity = format!(
        "a change like this at {} of {} comparable times",
        verdict.like, verdict.comparable
    );
    if verdict.presence {
        let what = if verdict.trend < 0.0 {
            "stopped reporting"
        } else {
            "began to report"
        };
        return format!("{name} {what}; {rarity}");
    }
    let (before, after) = (verdict.before, verdict.after);
    // A change is what is left without the season, which may go the other way.
    let verb = match (verdict.trend > 0.0, after < before) {
        (true, false) => "rose",
        (false, true) => "fell",
        (true, true) => "fell less than usual at this time of day,",
        (false, false) => "rose less than usual at this time of day,",
    };
    let factor = after / before;
    let size = if before > 0.0 && after > 0.0 && !(0.5..2.0).contains(&factor) {
        format!(" ({}x)", number(factor, 2))
    } else if before != 0.0 && factor.is_finite() {
        format!(" ({:+.0} %)", 100.0 * (factor - 1.0))
    } else {
        String::new()
    };
    format!(
        "{name} {verb} from {} to {}{size}, {:.1} times its own largest usual change; {rarity}",
        number(before, 3),
        number(after, 3),
        verdict.ratio
    )
}

/// `value` with so many significant digits and no exponent, trailing zeros of fractions removed.
pub(super) fn number(value: f64, digits: i32) -> String {
    if !value.is_finite() {
        return "unknown".to_owned();
    }
    if value == 0.0 {
        return "0".to_owned();
    }
    let magnitude = value.abs().log10().floor() as i32;
    let unit = 10_f64.powi(magnitude - digits + 1);
    let rounded = (value / unit).round() * unit;
    let decimals = usize::try_from(digits - 1 - magnitude).unwrap_or(0);
    let text = format!("{rounded:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_of_a_name_say_what_is_worse() {
        for (name, expected) in [
            ("stats.counters.web.errors.count", Direction::UpIsWorse),
            ("stats.timers.web.request.upper_99", Direction::UpIsWorse),
            ("stats.timers.web.request.p99", Direction::UpIsWorse),
            ("web.http.503", Direction::UpIsWorse),
            ("web.http.404", Direction::Unknown),
            ("web.errors.orders.count", Direction::DownIsWorse),
            ("web.cache.hit_ratio", Direction::DownIsWorse),
            ("web.response_time.mean", Direction::UpIsWorse),
            ("host.disk.free;host=a", Direction::DownIsWorse),
            ("servers.a.timeline", Direction::Unknown),
            ("a.p9", Direction::Unknown),
        ] {
            assert_eq!(direction(name), expected, "{name}");
        }
    }

    #[test]
    fn a_change_against_the_season_is_called_so() {
        let mut verdict = crate::impact::follow::tests::verdict(true);
        (verdict.before, verdict.after) = (2.5, 2.25);
        let text = words("web.orders", &verdict);
        let expected = "web.orders fell less than usual at this time of day, from 2.5 to 2.25 (-10 %), 8.4 times";
        assert!(text.starts_with(expected), "{text}");
    }

    #[test]
    fn hosts_and_numbers_do_not_tell_series_apart() {
        assert_eq!(without_host("servers.web01.cpu.user"), "servers.*.cpu.user");
        assert_eq!(without_host("web.upper_90"), without_host("web.upper_999"));
        assert_ne!(without_host("web.a.count"), without_host("web.b.count"));
    }

    #[test]
    fn numbers_are_short_and_readable() {
        for (value, digits, expected) in [
            (0.2, 3, "0.2"),
            (3.1347, 3, "3.13"),
            (1_234_567.0, 3, "1230000"),
            (15.49, 2, "15"),
            (0.000_123_4, 3, "0.000123"),
            (-71.06, 3, "-71.1"),
            (99.96, 3, "100"),
            (f64::NAN, 3, "unknown"),
        ] {
            assert_eq!(number(value, digits), expected);
        }
    }
}
