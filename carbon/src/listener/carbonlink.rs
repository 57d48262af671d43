//! Connections of CarbonLink.

use std::fmt::Display;
use std::io;
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use whisper::Point;

use super::tcp::Connection;
use crate::error::Error;
use crate::protocol::Buffer;
use crate::protocol::carbonlink::{
    MAX_REQUEST, Name, Request, datapoints, datapoints_by_metric, parse, texts,
};
use crate::protocol::frame::Frames;
use crate::protocol::pickle::Machine;
use crate::store::Carbon;

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

/// Answers the requests of a connection, one after the other. `changes` is locked while a file is changed:
/// requests that have to wait must not hold all threads that work on files.
///
/// # Errors
/// The connection broke, or the client does not read its answers.
pub(super) async fn answer(mut connection: Connection, changes: Arc<Mutex<()>>) -> io::Result<()> {
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
            let bytes = reply(&carbon, request, &changes).await;
            connection.write(&bytes).await?;
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
async fn reply(carbon: &Carbon, request: Request, changes: &Mutex<()>) -> Vec<u8> {
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
            let read = |name: &str, points: &mut Vec<Point>| cached(carbon, name, points);
            datapoints_by_metric(&names, read, &mut out)
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
            let _one = changes.lock().await;
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
