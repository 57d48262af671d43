//! Asks another server what it has, in carbonapi's protocol (`carbonapi_v3_pb`), whose answers come from
//! that machine alone: two servers that ask each other make no loop.

use std::time::Duration;

use anyhow::{anyhow, bail};
use prost::Message;
use render::protobuf::v3;
use serde_json::Value;

/// The size limit of an answer.
pub const MAX_ANSWER: usize = 64 << 20;
const VERSION_3: &str = "application/x-carbonapi-v3-pb";

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
    /// It cannot be reached, or refuses the request.
    pub fn fetch(
        &self,
        names: &[&str],
        from: i64,
        until: i64,
    ) -> anyhow::Result<Vec<v3::FetchResponse>> {
        let metrics = names.iter().map(|name| v3::FetchRequest {
            name: (*name).to_owned(),
            start_time: from,
            stop_time: until,
            path_expression: (*name).to_owned(),
        });
        let request = v3::MultiFetchRequest {
            metrics: metrics.collect(),
        };
        let answer = self.ask("/render/", request.encode_to_vec())?;
        let Some(body) = answer else {
            return Ok(Vec::new());
        };
        Ok(v3::MultiFetchResponse::decode(&*body)?.metrics)
    }

    /// The nodes that `pattern` matches.
    ///
    /// # Errors
    /// As [`Machine::fetch`].
    pub fn find(&self, pattern: &str) -> anyhow::Result<Vec<v3::GlobMatch>> {
        let request = v3::MultiGlobRequest {
            metrics: vec![pattern.to_owned()],
        };
        let answer = self.ask("/metrics/find/", request.encode_to_vec())?;
        let Some(body) = answer else {
            return Ok(Vec::new());
        };
        let metrics = v3::MultiGlobResponse::decode(&*body)?.metrics;
        Ok(metrics.into_iter().flat_map(|one| one.matches).collect())
    }

    /// The layout of the files of `names`.
    ///
    /// # Errors
    /// As [`Machine::fetch`].
    pub fn info(&self, names: &[&str]) -> anyhow::Result<Vec<v3::MetricsInfoResponse>> {
        let request = v3::MultiGlobRequest {
            metrics: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        let answer = self.ask("/info/", request.encode_to_vec())?;
        let Some(body) = answer else {
            return Ok(Vec::new());
        };
        Ok(v3::MultiMetricsInfoResponse::decode(&*body)?.metrics)
    }

    /// The JSON that a GET of `path` with `pairs` gives.
    ///
    /// # Errors
    /// As [`Machine::fetch`].
    pub fn json(&self, path: &str, pairs: &[(&str, &str)]) -> anyhow::Result<Value> {
        let base = &self.base;
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(pairs);
        let url = format!("{base}{path}?{}", query.finish());
        let response = self
            .agent
            .get(url)
            .header("accept", "application/json")
            .call();
        let body = self.body(response)?;
        let body = body.ok_or_else(|| anyhow!("{base} has no {path}"))?;
        Ok(serde_json::from_slice(&body)?)
    }

    /// Posts a message; `None`: it has found nothing.
    fn ask(&self, path: &str, message: Vec<u8>) -> anyhow::Result<Option<Vec<u8>>> {
        let url = format!("{}{path}?format=carbonapi_v3_pb", self.base);
        let request = self
            .agent
            .post(url)
            .header("accept", VERSION_3)
            .header("content-type", VERSION_3);
        self.body(request.send(&message[..]))
    }

    fn body(
        &self,
        outcome: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> anyhow::Result<Option<Vec<u8>>> {
        let base = &self.base;
        let mut response = outcome.map_err(|why| anyhow!("{base}: {why}"))?;
        let status = response.status();
        let body = response.body_mut().with_config().limit(MAX_ANSWER as u64);
        let bytes = body.read_to_vec().map_err(|why| anyhow!("{base}: {why}"))?;
        match status.as_u16() {
            200 => Ok(Some(bytes)),
            404 => Ok(None),
            other => {
                let text = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]);
                bail!("{base} answers {other}: {}", text.trim())
            }
        }
    }
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
