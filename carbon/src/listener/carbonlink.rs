//! Connections of CarbonLink.
//!
//! An answer may have many megabytes, which stay in memory until the client has read them: all of them together are
//! bounded ([`MAX_UNREAD`]), and each has to be read in time ([`READ_WITHIN`]). Answers about several series are made by
//! threads for such work, [`BULK`] at a time.

use std::fmt::Display;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use whisper::Point;

use super::tcp::Connection;
use crate::error::Error;
use crate::protocol::Buffer;
use crate::protocol::carbonlink::{
    MAX_ANSWER, MAX_REQUEST, Name, Request, datapoints, datapoints_by_metric, parse, texts,
};
use crate::protocol::frame::Frames;
use crate::protocol::pickle::Machine;
use crate::store::Carbon;

/// The bytes of answers that clients have not read.
const MAX_UNREAD: usize = 4 * MAX_ANSWER;
/// Answers of up to so many bytes are as many as there are connections, and do not count.
const SMALL: usize = 64 << 10;
/// How long a client may take to read an answer.
const READ_WITHIN: Duration = Duration::from_secs(60);
/// How many answers about several series are made at a time.
const BULK: usize = 2;

/// What all connections share.
#[derive(Debug)]
pub(super) struct Shared {
    /// Locked while a file is changed: requests that have to wait must not hold all threads that work on files.
    changes: Mutex<()>,
    /// Answers about several series that may be made now.
    bulk: Semaphore,
    /// The bytes of the answers that clients have not read, and the most that there may be.
    unread: AtomicUsize,
    max_unread: usize,
}

/// The memory of an answer, until the client has read it.
struct Unread<'s>(&'s Shared, usize);

impl Default for Shared {
    fn default() -> Self {
        Self::new(MAX_UNREAD)
    }
}

impl Shared {
    fn new(max_unread: usize) -> Self {
        Self {
            changes: Mutex::default(),
            bulk: Semaphore::new(BULK),
            unread: AtomicUsize::new(0),
            max_unread,
        }
    }

    /// Takes room for an answer of `bytes`, if there is enough.
    fn unread(&self, bytes: usize) -> Option<Unread<'_>> {
        let counted = if bytes > SMALL { bytes } else { 0 };
        let before = self.unread.fetch_add(counted, Ordering::Relaxed);
        let unread = Unread(self, counted);
        // Dropped, it gives back what does not fit.
        (before + counted <= self.max_unread || counted == 0).then_some(unread)
    }
}

impl Drop for Unread<'_> {
    fn drop(&mut self) {
        self.0.unread.fetch_sub(self.1, Ordering::Relaxed);
    }
}

/// The frames of a connection, and what reads them.
struct Reading {
    frames: Frames,
    machine: Machine,
}

impl Buffer for Reading {
    fn space(&mut self) -> &mut [u8] {
        self.frames.space()
    }

    fn rest(&mut self) {
        self.frames.rest();
        self.machine = Machine::default();
    }

    fn unread(&self) -> usize {
        self.frames.unread().len()
    }
}

/// Answers the requests of a connection, one after the other.
///
/// # Errors
/// The connection broke, or the client does not read its answers.
pub(super) async fn answer(mut connection: Connection, shared: Arc<Shared>) -> io::Result<()> {
    let carbon = connection.carbon.clone();
    let stats = carbon.stats();
    let mut reading = Reading {
        frames: Frames::new(MAX_REQUEST),
        machine: Machine::default(),
    };
    loop {
        let n = match connection.read(&mut reading).await? {
            0 => return Ok(()),
            n => n,
        };
        let Reading { frames, machine } = &mut reading;
        let mut requests = Vec::new();
        let outcome = frames.advance(n, |frame| requests.push(parse(frame, machine)));
        for request in requests {
            stats.carbonlink_requests.add(1);
            let mut bytes = reply(&carbon, request, &shared).await;
            let room = shared.unread(bytes.len());
            if room.is_none() {
                stats.carbonlink_errors.add(1);
                bytes = Vec::new();
                texts(
                    &[("error", "too many answers have not been read")],
                    &mut bytes,
                );
            }
            let written = timeout(READ_WITHIN, connection.write(&bytes)).await;
            written.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        }
        if outcome.is_err() {
            stats.carbonlink_errors.add(1);
            return Ok(());
        }
        if !connection.keeps(reading.unread()) {
            return Ok(());
        }
    }
}

/// The framed answer to `request`.
async fn reply(carbon: &Carbon, request: Request, shared: &Shared) -> Vec<u8> {
    let mut out = Vec::new();
    let outcome = match request {
        Request::Query(name) => {
            let mut points = Vec::new();
            if let Name::Text(name) = &name {
                cached(carbon, name, &mut points);
            }
            datapoints(&mut points, &mut out);
            Ok(())
        }
        Request::Bulk(names) => {
            carbon.stats().count_bulk_query(names.len());
            // The semaphore is never closed.
            let _one = shared.bulk.acquire().await;
            let carbon = carbon.clone();
            let make = move || {
                let mut out = Vec::new();
                let read = |name: &str, points: &mut Vec<Point>| cached(&carbon, name, points);
                datapoints_by_metric(&names, read, &mut out).map(|()| out)
            };
            let made = spawn_blocking(make).await;
            let made = made.unwrap_or_else(|why| Err(why.to_string()));
            made.map(|made| out = made)
        }
        Request::Get { metric } => {
            let (carbon, name) = (carbon.clone(), metric.clone());
            let found = spawn_blocking(move || carbon.aggregation(&name)).await;
            without_paths(found, &metric).map(|method| texts(&[("value", method.name())], &mut out))
        }
        Request::Set {
            metric,
            method,
            value,
        } => {
            let (carbon, name) = (carbon.clone(), metric.clone());
            let _one = shared.changes.lock().await;
            let set = spawn_blocking(move || carbon.set_aggregation(&name, method)).await;
            without_paths(set, &metric).map(|old| {
                texts(
                    &[("old_value", old.name()), ("new_value", &value)],
                    &mut out,
                );
            })
        }
        Request::Invalid(why) => Err(why),
    };
    if let Err(why) = outcome {
        carbon.stats().carbonlink_errors.add(1);
        texts(&[("error", &why)], &mut out);
    }
    out
}

/// The points of the series called `name` that are not in its file yet.
fn cached(carbon: &Carbon, name: &str, points: &mut Vec<Point>) {
    let Ok(canonical) = crate::series::canonical(name.as_bytes()) else {
        return;
    };
    let index = carbon.index();
    let _pin = index.pin();
    let known = index.names().get(canonical.as_bytes());
    if let Some(series) = known {
        carbon.cache().read(series, points);
        carbon.stats().queries.add(1);
    }
}

/// What work on the file of `metric` gave, or an error for the client, which must not learn paths.
fn without_paths<T, E: Display>(
    outcome: Result<crate::Result<T>, E>,
    metric: &str,
) -> Result<T, String> {
    let why = match outcome {
        Ok(Ok(done)) => return Ok(done),
        Ok(Err(Error::Whisper(why))) if why.is_missing() => {
            return Err(format!("there is no file for {metric:?}"));
        }
        Ok(Err(why @ (Error::Name { .. } | Error::ReadOnly))) => return Err(why.to_string()),
        Ok(Err(why)) => why.to_string(),
        Err(why) => why.to_string(),
    };
    tracing::warn!("CarbonLink: {why}");
    Err(format!(
        "the file of {metric:?} cannot be used: the log has the reason"
    ))
}

#[cfg(test)]
mod tests {
    use super::super::peers::Peers;
    use super::super::tcp::accept;
    use super::*;
    use crate::datapoint::{Datapoint, PointTime, Sink};
    use crate::options::{JournalOptions, Options, Span};
    use crate::protocol::pickle::write;
    use crate::store::{Access, Setup};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpSocket, TcpStream};
    use whisper::Timestamp;

    const NAMES: usize = 400;
    /// Longer than what the kernel keeps for a connection whose client does not read.
    const POINTS: u32 = 2_000;

    async fn ask(address: std::net::SocketAddr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4 << 10).unwrap();
        let mut client = socket.connect(address).await.unwrap();
        let mut request = Vec::new();
        write::frame(&mut request, |out| {
            write::dict(out, |out| {
                write::text(out, "type");
                write::text(out, "cache-query-bulk");
                write::text(out, "metrics");
                write::list(out, |out| {
                    (0..NAMES).for_each(|n| write::text(out, &format!("a.m{n}")));
                });
            });
        });
        client.write_all(&request).await.unwrap();
        client
    }

    async fn answer_of(mut client: TcpStream) -> Vec<u8> {
        let len = client.read_u32().await.unwrap();
        let mut answer = vec![0; len as usize];
        client.read_exact(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn answers_that_nobody_reads_have_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        // Nothing takes the points out of the cache.
        let setup = Setup {
            access: Access::Frozen,
            ..Setup::new(
                Options::default(),
                JournalOptions::default(),
                Span::seconds(10),
            )
        };
        let carbon = Carbon::open(setup, dir.path()).unwrap();
        let now = carbon.now().0;
        for n in 0..NAMES {
            let series = carbon.intern(format!("a.m{n}").as_bytes()).unwrap();
            let points = (0..POINTS).rev().map(|n| Datapoint {
                series,
                at: PointTime::new(Timestamp(now - n)).unwrap(),
                value: f64::from(n),
            });
            carbon.cache().reserve(POINTS as usize);
            let points: Vec<_> = points.collect();
            carbon
                .cache()
                .insert(&points, Timestamp(now), &mut Vec::new());
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // Room for one answer and a half.
        let shared = Arc::new(Shared::new(24 << 20));
        let own = Arc::clone(&shared);
        let run = move |connection| answer(connection, Arc::clone(&own));
        let peers = Arc::new(parking_lot::Mutex::new(Peers::new(&carbon)));
        let end = std::future::pending();
        let server = tokio::spawn(accept(carbon, peers, "k", listener, end, run));
        let slow = ask(address).await;
        while shared.unread.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        let refused = String::from_utf8_lossy(&answer_of(ask(address).await).await).into_owned();
        assert!(
            refused.contains("too many answers have not been read"),
            "{}",
            refused.len()
        );
        // The slow one gets its answer, and then there is room again.
        let whole = answer_of(slow).await.len();
        assert!(whole > 12 << 20, "{whole} bytes");
        while shared.unread.load(Ordering::Relaxed) > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(answer_of(ask(address).await).await.len(), whole);
        server.abort();
    }
}
