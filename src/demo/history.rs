//! The generated past of the shop: for each series the values that flushes would have written, as the archives
//! combine them.
//!
//! 1. A value depends on the shop, the time and the length of its step only.
//! 2. The past scatters as much as the shop that is open does: deploys of the present are compared with it. What
//!    the scatter is follows from the number of visitors ([`Timing`]); the test compares with the lines that the shop
//!    sends.

use super::noise::{Noise, response};
use super::shop::{COUNTERS, Shop, TIMERS, USERS};

/// The statistics of a timer that StatsD writes.
const STATS: &[&str] = &[
    "count", "count_ps", "lower", "mean", "mean_90", "median", "std", "sum", "sum_90", "upper",
    "upper_90",
];

/// A series of the past, computed point by point.
#[derive(Clone, Debug)]
pub struct Filled {
    /// The name that StatsD gives it.
    pub name: String,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Rate(&'static str),
    Count(&'static str),
    Stat {
        timer: &'static str,
        share: f64,
        stat: &'static str,
    },
    Carts,
    Users,
}

/// Every series that a flush of the shop's metrics writes.
pub fn series() -> Vec<Filled> {
    let filled = |name: String, what| Filled { name, what };
    let mut all = Vec::new();
    for counter in COUNTERS {
        all.push(filled(format!("stats.{counter}"), What::Rate(counter)));
        let name = format!("stats_counts.{counter}");
        all.push(filled(name, What::Count(counter)));
    }
    for (timer, share) in TIMERS {
        for stat in STATS {
            let name = format!("stats.timers.{timer}.{stat}");
            let what = What::Stat {
                timer,
                share: *share,
                stat,
            };
            all.push(filled(name, what));
        }
    }
    all.push(filled("stats.gauges.shop.carts".to_owned(), What::Carts));
    let users = "stats.sets.shop.users.count".to_owned();
    all.push(filled(users, What::Users));
    all
}

impl Filled {
    /// The value of the step of `seconds` that begins at `at`, made of flushes every `flush` seconds.
    pub fn value(&self, shop: Shop, at: i64, seconds: i64, flush: i64) -> f64 {
        let length = seconds as f64;
        let count = |name: &str, rate: f64| Noise::of(name, at).poisson(rate * length);
        match &self.what {
            What::Rate(counter) => count(counter, shop.rate(counter, at)) / length,
            What::Count(counter) => count(counter, shop.rate(counter, at)),
            What::Carts => shop.carts(at).round(),
            // Unique within a flush; the archives add up what is called count.
            What::Users => count("shop.users", shop.load(at) * USERS),
            What::Stat { timer, share, stat } => {
                let n = count(timer, shop.load(at) * share).max(1.0);
                let timing = Timing {
                    n,
                    flushes: (seconds / flush.max(1)).max(1) as f64,
                    wait: shop.wait(timer, at),
                };
                match *stat {
                    "count" => n,
                    "count_ps" => n / length,
                    stat => timing.statistic(stat, &mut Noise::of(timer, at + 1)),
                }
            }
        }
    }
}

/// The response times of one step.
struct Timing {
    /// How many there are.
    n: f64,
    /// The flushes that they are in.
    flushes: f64,
    /// Their mean.
    wait: f64,
}

impl Timing {
    /// The statistic called `stat`. How much each scatters follows from the distribution of response times: that of
    /// a mean is its deviation (0.44 of the mean) over the root of `n`, that of a quantile `q`
    /// is √(q(1−q)) over the density there.
    fn statistic(&self, stat: &str, random: &mut Noise) -> f64 {
        let Self { n, flushes, wait } = *self;
        let root = n.sqrt();
        let usual = random.bell();
        let mean = wait * 0.998 * (1.0 + 0.44 * usual / root);
        let below_90 = wait * 0.892 * (1.0 + 0.36 * usual / root);
        match stat {
            "mean" => mean,
            "mean_90" => below_90,
            "median" => wait * response(0.0) * (1.0 + 0.526 * random.bell() / root),
            "std" => wait * 0.435 * (1.0 + 1.1 * random.bell() / root),
            "sum" => mean * n,
            "sum_90" => below_90 * (0.9 * n).round(),
            "lower" => wait * response(-random.largest(n)),
            "upper" => wait * response(random.largest(n)),
            // The largest of the flushes' 90th percentiles. Of few values it lies a little lower.
            _ => {
                let each = (n / flushes).max(1.0);
                let place = (0.9 * each).round() / (each + 1.0);
                let low = 5.698 * (place - 0.9);
                let largest = (0..flushes as usize)
                    .map(|_| random.bell())
                    .fold(f64::NEG_INFINITY, f64::max);
                wait * response(1.2816 + low + 1.71 * largest / each.sqrt())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const FLUSH: i64 = 10;

    /// What a flush makes of the response times of one timer.
    fn statistics(mut times: Vec<f64>) -> BTreeMap<&'static str, f64> {
        times.sort_by(f64::total_cmp);
        let n = times.len();
        let mean = times.iter().sum::<f64>() / n as f64;
        let low = ((0.9 * n as f64).round() as usize).max(1);
        let squares: f64 = times.iter().map(|time| (time - mean).powi(2)).sum();
        let sum_90: f64 = times[..low].iter().sum();
        BTreeMap::from([
            ("count", n as f64),
            ("count_ps", n as f64 / FLUSH as f64),
            ("lower", times[0]),
            ("mean", mean),
            ("mean_90", sum_90 / low as f64),
            ("median", (times[(n - 1) / 2] + times[n / 2]) / 2.0),
            ("std", (squares / n as f64).sqrt()),
            ("sum", mean * n as f64),
            ("sum_90", sum_90),
            ("upper", times[n - 1]),
            ("upper_90", times[low - 1]),
        ])
    }

    /// Mean and deviation.
    fn shape(values: &[f64]) -> (f64, f64) {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        (mean, (squares / values.len() as f64).sqrt())
    }

    /// What the archives make of the values of several flushes.
    fn combined(stat: &str, flushes: &[f64]) -> f64 {
        match stat {
            "count" | "sum" | "sum_90" => flushes.iter().sum(),
            "upper" | "upper_90" => flushes.iter().copied().fold(f64::MIN, f64::max),
            "lower" => flushes.iter().copied().fold(f64::MAX, f64::min),
            _ => flushes.iter().sum::<f64>() / flushes.len() as f64,
        }
    }

    #[test]
    fn the_past_is_what_the_shop_would_have_sent() {
        const MINUTES: i64 = 120;
        let shop = Shop {
            opened: 1_700_000_000,
            broken: false,
        };
        let at = shop.opened + 180;
        let mut random = Noise::new(1);
        let mut sent: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for _ in 0..MINUTES * 60 / FLUSH {
            let mut times: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
            let mut counts: BTreeMap<&str, f64> = BTreeMap::new();
            let lines: Vec<String> = (0..FLUSH)
                .flat_map(|_| shop.visit(at, 1.0, &mut random))
                .collect();
            for line in &lines {
                let (name, rest) = line.split_once(':').unwrap();
                let (value, kind) = rest.split_once('|').unwrap();
                let value: f64 = value.parse().unwrap();
                match kind {
                    "ms" => times.entry(name).or_default().push(value),
                    "c" => *counts.entry(name).or_default() += value,
                    _ => {}
                }
            }
            for (timer, _) in TIMERS {
                for (stat, value) in statistics(times.remove(timer).unwrap()) {
                    let name = format!("stats.timers.{timer}.{stat}");
                    sent.entry(name).or_default().push(value);
                }
            }
            for counter in COUNTERS {
                let count = counts.get(counter).copied().unwrap_or_default();
                sent.entry(format!("stats_counts.{counter}"))
                    .or_default()
                    .push(count);
                let rate = count / FLUSH as f64;
                sent.entry(format!("stats.{counter}"))
                    .or_default()
                    .push(rate);
            }
        }
        let mut compared = 0;
        let mut wrong = Vec::new();
        for one in series() {
            let Some(flushes) = sent.get(&one.name) else {
                continue;
            };
            let stat = match one.name.starts_with("stats_counts") {
                true => "count",
                false => one.name.rsplit('.').next().unwrap(),
            };
            let minutes: Vec<f64> = flushes.chunks(6).map(|six| combined(stat, six)).collect();
            for (seconds, sent) in [(FLUSH, flushes), (60, &minutes)] {
                // The same hour of other weeks: the same load, another chance.
                let past = |week: i64| one.value(shop, at + week * 604_800, seconds, FLUSH);
                let past: Vec<f64> = (0..1_000).map(past).collect();
                let ((mean, scatter), (sent, sent_scatter)) = (shape(&past), shape(sent));
                // Four times what chance makes of the mean of what was sent.
                let chance = 4.0 * sent_scatter / (MINUTES as f64 * 60.0 / seconds as f64).sqrt();
                let off = (mean - sent).abs();
                if off > chance.max(0.025 * sent)
                    || !(0.7..1.45).contains(&(scatter / sent_scatter))
                {
                    wrong.push(format!(
                        "{} of {seconds} s: {mean} ± {scatter}, but sent was {sent} ± {sent_scatter}",
                        one.name
                    ));
                }
                compared += 1;
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert_eq!(
            compared,
            2 * (2 * COUNTERS.len() + STATS.len() * TIMERS.len())
        );
    }
}
