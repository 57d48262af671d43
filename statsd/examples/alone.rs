//! A StatsD server and nothing else: what the benches measure, and the smallest embedding.
//!
//! ```text
//! cargo run --release -p statsd --example alone -- '{"udp": ["127.0.0.1:8125"], "output": ["console"]}'
//! ```
//!
//! The argument is the `[statsd]` section as JSON. A line on standard input stops it.

use std::error::Error;
use std::net::{TcpListener, UdpSocket};
use std::sync::Arc;

use carbon::{Datapoint, NameError, SeriesId, Sink};
use statsd::{Event, EventSink, Options, Server, Sockets};

/// Nothing is kept.
struct Nowhere;

impl Sink for Nowhere {
    fn intern(&self, _name: &[u8]) -> Result<SeriesId, NameError> {
        Ok(SeriesId(0))
    }

    fn submit(&self, _points: &[Datapoint]) {}

    fn try_submit(&self, points: &[Datapoint]) -> usize {
        points.len()
    }
}

impl EventSink for Nowhere {
    fn event(&self, event: Event) {
        eprintln!("{event:?}");
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let text = std::env::args().nth(1).unwrap_or_else(|| "{}".to_owned());
    let options: Options = serde_json::from_str(&text)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let _guard = runtime.enter();
    let bind = |addresses: &[String]| -> std::io::Result<Vec<TcpListener>> {
        addresses.iter().map(TcpListener::bind).collect()
    };
    let udp: Result<Vec<_>, _> = options.udp.iter().map(UdpSocket::bind).collect();
    let sockets = Sockets {
        udp: udp?,
        tcp: bind(&options.tcp)?,
        admin: bind(&options.admin)?,
        ..Sockets::default()
    };
    let on_death = Arc::new(|thread: &str| {
        eprintln!("{thread} has died");
        std::process::abort();
    });
    let nowhere = Arc::new(Nowhere);
    let server = Server::start(options, sockets, nowhere.clone(), nowhere, None, on_death)?;
    while std::io::stdin().read_line(&mut String::new())? == 0 {
        std::thread::sleep(std::time::Duration::from_secs(3_600));
    }
    server.flush_now();
    let counters = server
        .stats()
        .each()
        .map(|(name, _, count)| (name.to_owned(), count.into()));
    println!("{}", serde_json::Value::Object(counters.collect()));
    server.stop()?;
    Ok(())
}
