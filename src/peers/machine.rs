//! Asks another server what it has, in carbonapi's protocol (`carbonapi_v3_pb`), whose answers come from
//! that machine alone: two servers that ask each other make no loop.
//!
//! An answer is reserved in the memory of the request that asks: its bytes while they arrive, and what becomes of them
//! before it is made.

use std::io::Read;
use std::time::Duration;

use anyhow::{anyhow, bail};
use prost::Message;
use render::budget::{Budget, Reservation};
use render::format::Buffer;
use render::protobuf::{LAYOUTS, NODES, SERIES, Shape, decode_answer, v3};
use serde::de::DeserializeOwned;

/// The size limit of an answer.
pub const MAX_ANSWER: usize = 64 << 20;
/// How much of an answer is read at once.
const PIECE: usize = 16 << 10;
const VERSION_3: &str = "application/x-carbonapi-v3-pb";

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The other server cannot be reached, refuses, or its answer makes no sense.
    #[error("{0:#}")]
    There(anyhow::Error),
    /// The request that asks may not go on: it has no memory for the answer, or no time.
    #[error(transparent)]
    Here(render::Error),
}

/// An answer.
#[derive(Debug)]
pub struct Answer<T> {
    /// What it says.
    pub content: T,
    /// Its memory.
    held: Reservation,
}

impl<T> Answer<T> {
    fn map<U>(self, change: impl FnOnce(T) -> U) -> Answer<U> {
        Answer {
            content: change(self.content),
            held: self.held,
        }
    }
}

/// Another server.
#[derive(Debug)]
pub struct Machine {
    agent: ureq::Agent,
    base: String,
}

impl Machine {
    /// The server at `url`, which may have a path of its own; each request to it may take as long as
    /// `timeout`.
    ///
    /// # Errors
    /// The URL does not begin with `http://`.
    pub fn new(url: &str, timeout: Duration) -> anyhow::Result<Self> {
        if !is_url(url) {
            bail!("{url:?} does not begin with http:// and a host");
        }
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            .user_agent(concat!("plumbago/", env!("CARGO_PKG_VERSION")))
            .proxy(None)
            .build();
        Ok(Self {
            agent: config.into(),
            base: url.trim_end_matches('/').to_owned(),
        })
    }

    /// Its URL.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The series that `names` (patterns) give in `(from, until]`, as they are stored.
    ///
    /// # Errors
    /// It cannot be reached, or refuses the request; or `budget` has no memory for the answer.
    pub fn fetch(
        &self,
        names: &[&str],
        (from, until): (i64, i64),
        budget: &Budget,
    ) -> Result<Answer<Vec<v3::FetchResponse>>, Failure> {
        let metrics = names.iter().map(|name| v3::FetchRequest {
            name: (*name).to_owned(),
            start_time: from,
            stop_time: until,
            path_expression: (*name).to_owned(),
        });
        let request = v3::MultiFetchRequest {
            metrics: metrics.collect(),
        };
        let answer = self.ask("/render/", &request, SERIES, budget)?;
        Ok(answer.map(|answer: v3::MultiFetchResponse| answer.metrics))
    }

    /// The nodes that `pattern` matches.
    ///
    /// # Errors
    /// As [`Machine::fetch`].
    pub fn find(
        &self,
        pattern: &str,
        budget: &Budget,
    ) -> Result<Answer<Vec<v3::GlobMatch>>, Failure> {
        let request = v3::MultiGlobRequest {
            metrics: vec![pattern.to_owned()],
        };
        let answer = self.ask("/metrics/find/", &request, NODES, budget)?;
        Ok(answer.map(|answer: v3::MultiGlobResponse| {
            // One pattern has one message.
            let mut messages = answer.metrics.into_iter().map(|one| one.matches);
            let mut found = messages.next().unwrap_or_default();
            found.extend(messages.flatten());
            found
        }))
    }

    /// The layout of the files of `names`.
    ///
    /// # Errors
    /// As [`Machine::fetch`].
    pub fn info(
        &self,
        names: &[&str],
        budget: &Budget,
    ) -> Result<Answer<Vec<v3::MetricsInfoResponse>>, Failure> {
        let request = v3::MultiGlobRequest {
            metrics: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        let answer = self.ask("/info/", &request, LAYOUTS, budget)?;
        Ok(answer.map(|answer: v3::MultiMetricsInfoResponse| answer.metrics))
    }

    /// The JSON that a GET of `path` with `pairs` gives: lists of `T`s, which are small, or an object of them.
    ///
    /// # Errors
    /// As [`Machine::fetch`].
    pub fn json<T: DeserializeOwned>(
        &self,
        path: &str,
        pairs: &[(&str, &str)],
        budget: &Budget,
    ) -> Result<Answer<T>, Failure> {
        let base = &self.base;
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(pairs);
        let url = format!("{base}{path}?{}", query.finish());
        let response = self
            .agent
            .get(url)
            .header("accept", "application/json")
            .call();
        let body = self.body(response, budget)?;
        let body = body.ok_or_else(|| Failure::There(anyhow!("{base} has no {path}")))?;
        let held = budget.hold(size_of_json(&body)).map_err(Failure::Here)?;
        let read = serde_json::from_slice(&body);
        Ok(Answer {
            content: read.map_err(|why| Failure::There(anyhow!("{base}{path}: {why}")))?,
            held,
        })
    }

    /// Posts a message. Without an answer it has found nothing.
    fn ask<M: Message + Default>(
        &self,
        path: &str,
        message: &impl Message,
        shape: Shape,
        budget: &Budget,
    ) -> Result<Answer<M>, Failure> {
        let base = &self.base;
        let url = format!("{base}{path}?format=carbonapi_v3_pb");
        let request = self
            .agent
            .post(url)
            .header("accept", VERSION_3)
            .header("content-type", VERSION_3);
        let body = self.body(request.send(&message.encode_to_vec()[..]), budget)?;
        let body = body.as_deref().unwrap_or_default();
        let (content, held) = decode_answer(body, shape, budget).map_err(|error| match error {
            render::Error::Refused(why) => Failure::There(anyhow!("{base}{path}: {why}")),
            error => Failure::Here(error),
        })?;
        Ok(Answer { content, held })
    }

    fn body(
        &self,
        outcome: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
        budget: &Budget,
    ) -> Result<Option<Buffer>, Failure> {
        let base = &self.base;
        let there = |why: &dyn std::fmt::Display| Failure::There(anyhow!("{base}: {why}"));
        let mut response = outcome.map_err(|why| there(&why))?;
        let status = response.status();
        let body = response.body_mut().with_config().limit(MAX_ANSWER as u64);
        let bytes = read(body.reader(), budget).map_err(|failure| match failure {
            Failure::There(why) => there(&why),
            here => here,
        })?;
        match status.as_u16() {
            200 => Ok(Some(bytes)),
            404 => Ok(None),
            other => {
                let text = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]);
                let text = text.trim();
                Err(Failure::There(anyhow!("{base} answers {other}: {text}")))
            }
        }
    }
}

/// All that `reader` gives, each piece reserved before it is kept.
fn read(mut reader: impl Read, budget: &Budget) -> Result<Buffer, Failure> {
    let mut bytes = Buffer::new(budget);
    let mut piece = [0; PIECE];
    loop {
        budget.check().map_err(Failure::Here)?;
        let length = reader
            .read(&mut piece)
            .map_err(|why| Failure::There(why.into()))?;
        if length == 0 {
            return Ok(bytes);
        }
        let room = bytes.room(length).map_err(Failure::Here)?;
        room.extend_from_slice(&piece[..length]);
    }
}

/// What a value of JSON takes in a list that grows, with its smallest text.
const PER_VALUE: usize = 3 * 48 + 32;

/// About the bytes that the texts and lists in `body` take at most.
fn size_of_json(body: &[u8]) -> usize {
    let n_values = 1 + body.iter().filter(|&&byte| byte == b',').count();
    n_values * PER_VALUE + body.len()
}

/// Whether `text` can be the URL of a server.
pub fn is_url(text: &str) -> bool {
    let host = text.strip_prefix("http://");
    host.is_some_and(|host| {
        !host.is_empty() && !host.starts_with('/') && !host.contains(char::is_whitespace)
    })
}

/// Whether a name is a pattern of `find`: such a series cannot be asked for by its name.
pub fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?', '[', ']', '{', '}', '\\'])
}

#[cfg(test)]
mod tests {
    use std::io;

    use render::budget::Memory;

    use super::*;

    #[test]
    fn an_answer_is_reserved_while_it_arrives() {
        let budget = Budget::new(Memory::new(1 << 20), None);
        let mut answer = io::repeat(0).take(16 << 20);
        let refused = read(&mut answer, &budget).unwrap_err();
        assert!(matches!(refused, Failure::Here(_)), "{refused}");
        assert!(answer.limit() >= 15 << 20, "it is not read to its end");
        let bytes = read(io::repeat(0).take(100_000), &budget).unwrap();
        assert_eq!(bytes.len(), 100_000);
        drop(bytes);
        assert_eq!(budget.memory().used(), 0);
        budget.cancel();
        assert!(matches!(read(&b"a"[..], &budget), Err(Failure::Here(_))));
    }
}
