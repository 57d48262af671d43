//! The page: search over a million names, as its explorer asks for them.
//!
//! ```text
//! cargo bench --bench page                # a million names
//! cargo bench --bench page -- 100000      # fewer
//! ```
//!
//! Data: names as collectd and StatsD make them, fixed. Each query is asked over HTTP on loopback, one after the
//! other, by one client; the time is that of the whole request. The first search makes the list of names and is
//! shown on its own. Reference: the same query as `/metrics/find` would answer it is not possible (it has no search by
//! words), so the bound of the page stands beside the times: 50 ms at p99.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use render::budget::Budget;
use render::events::Event;
use render::http::page::{Dashboards, Host, Page};
use render::memory::Memory;
use render::source::Source as _;

/// The bound of the page.
const BOUND_MS: f64 = 50.0;
/// Times that each query is asked.
const ROUNDS: usize = 200;

/// What people type: words, parts of words, a glob, letters in order, a word that is in every name,
/// one that is in none.
const QUERIES: [&str; 8] = [
    "web0421 cpu idle",
    "interface-eth0 rx",
    "logi",
    "stats.*.errors.**",
    "w421cpuidle",
    "collectd",
    "zzzzqq",
    "a",
];

/// Names as ten plugins of collectd and StatsD make them.
fn names(n_names: usize) -> Memory {
    let kinds = [
        "cpu-0.cpu-idle",
        "cpu-0.cpu-user",
        "load.load.shortterm",
        "memory.memory-used",
        "interface-eth0.if_octets.rx",
        "interface-eth0.if_octets.tx",
        "df-root.df_complex-free",
        "disk-sda.disk_ops.read",
        "processes.ps_state-running",
        "uptime.uptime",
    ];
    let shop = ["logins", "checkouts", "errors.500", "errors.503", "pages"];
    let mut names = Memory::default();
    for n in 0..n_names {
        let name = match n % 5 {
            0 => format!("stats.app{}.{}", n / 25, shop[n / 5 % shop.len()]),
            _ => {
                let n = n - n / 5;
                let kind = kinds[n % kinds.len()];
                format!("collectd.web{:04}.{kind}", n / kinds.len())
            }
        };
        names.insert(&name, 10, Vec::new());
    }
    names
}

struct Nothing(BTreeMap<&'static str, Vec<String>>);

impl Host for Nothing {
    fn received(&self) -> u64 {
        0
    }

    fn addresses(&self) -> &BTreeMap<&'static str, Vec<String>> {
        &self.0
    }

    fn events(&self, _: &str, _: f64, _: f64, _: usize) -> Vec<Event> {
        Vec::new()
    }

    fn banner(&self) -> Option<&str> {
        None
    }
}

fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'));
    let n_names = arguments.next().map_or(1_000_000, |n| n.parse().unwrap());
    let source = names(n_names);
    let n_names = source.find("**", &Budget::unlimited()).unwrap().len();
    let host = Arc::new(Nothing(BTreeMap::new()));
    let page = Page::new(host, Arc::new(source), Dashboards::default());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .unwrap();
    let base = format!("http://{}/page/search?q=", listener.local_addr().unwrap());
    runtime.spawn(async move { axum::serve(listener, page.routes()).await });
    let agent = ureq::Agent::new_with_defaults();
    let ask = |query: &str| {
        let url = format!("{base}{}", query.replace(' ', "+"));
        let began = Instant::now();
        let answer = agent.get(&url).call().unwrap();
        let body = answer.into_body().into_reader();
        let found: serde_json::Value = serde_json::from_reader(body).unwrap();
        (began.elapsed(), found["hits"].as_u64().unwrap())
    };
    let (first, _) = ask("first");
    println!("page/search over {n_names} names, ms (bound: {BOUND_MS} at p99)");
    println!(
        "  the first search, which lists all names      {:>8.1}",
        ms(first)
    );
    let mut all = Vec::new();
    for query in QUERIES {
        let mut times: Vec<Duration> = Vec::new();
        let mut hits = 0;
        for _ in 0..ROUNDS {
            let (took, n) = ask(query);
            times.push(took);
            hits = n;
        }
        all.extend(&times);
        report(query, hits, &mut times);
    }
    report("all of them", 0, &mut all);
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn report(query: &str, hits: u64, times: &mut [Duration]) {
    times.sort();
    let at = |share: f64| ms(times[((times.len() - 1) as f64 * share) as usize]);
    println!(
        "  {query:<24} {hits:>5} hits   p50 {:>6.2}   p99 {:>6.2}",
        at(0.5),
        at(0.99)
    );
}
