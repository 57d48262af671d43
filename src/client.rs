//! The HTTP client of the verbs that take `--url`.

use std::time::Duration;

use anyhow::{anyhow, bail};
use serde_json::Value;

/// The timeout of a request.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The size limit of an answer.
const MAX_ANSWER: u64 = 64 << 20;

/// The address of the server and the token for it.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The server's URL.
    #[arg(
        long,
        value_name = "URL",
        env = "PLUMBAGO_URL",
        default_value = "http://127.0.0.1:8080"
    )]
    pub url: String,
    /// A token from the server's auth.tokens or auth.event_tokens. The environment variable keeps it
    /// out of the process list.
    #[arg(
        long,
        value_name = "TOKEN",
        env = "PLUMBAGO_TOKEN",
        hide_env_values = true
    )]
    pub token: Option<String>,
}

/// A client for one server.
pub struct Client {
    agent: ureq::Agent,
    base: String,
    authorization: Option<String>,
}

impl Client {
    /// A client for the server at `args.url`, which may have a path of its own.
    ///
    /// # Errors
    /// The URL does not begin with `http://`.
    pub fn new(args: &Args) -> anyhow::Result<Self> {
        Self::with_timeout(args, TIMEOUT)
    }

    /// As [`Client::new`], for answers that may take as long as `timeout`.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn with_timeout(args: &Args, timeout: Duration) -> anyhow::Result<Self> {
        let Args { url, token } = args;
        if !url.starts_with("http://") {
            bail!(
                "--url: {url:?} does not begin with http:// (https is not supported, use curl: docs/recipes/curl.md)"
            );
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
            authorization: token.as_ref().map(|token| format!("Bearer {token}")),
        })
    }

    /// The whole URL of `path`.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Gets the JSON at `path`.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses the request, with the reason it gives.
    pub fn get(&self, path: &str) -> anyhow::Result<Value> {
        let request = self.asking(self.agent.get(self.url(path)));
        self.answer(request.call())
    }

    /// Posts `json` to `path`; the answer is JSON too.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn post(&self, path: &str, json: &Value) -> anyhow::Result<Value> {
        self.send(path, "application/json", json.to_string())
    }

    /// Posts a form (`name=value&…`, encoded) to `path`; the answer is JSON.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn post_form(&self, path: &str, form: &str) -> anyhow::Result<Value> {
        self.send(path, "application/x-www-form-urlencoded", form)
    }

    fn send(
        &self,
        path: &str,
        content_type: &str,
        body: impl ureq::AsSendBody,
    ) -> anyhow::Result<Value> {
        let request = self.asking(self.agent.post(self.url(path)));
        self.answer(request.header("content-type", content_type).send(body))
    }

    /// A request that asks for JSON, with the token.
    fn asking<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        let request = request.header("accept", "application/json");
        match &self.authorization {
            Some(authorization) => request.header("authorization", authorization),
            None => request,
        }
    }

    fn answer(
        &self,
        outcome: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> anyhow::Result<Value> {
        let base = &self.base;
        let mut response = outcome.map_err(|why| anyhow!("{base}: {why}"))?;
        let status = response.status();
        let body = response.body_mut().with_config().limit(MAX_ANSWER);
        let text = body
            .read_to_string()
            .map_err(|why| anyhow!("{base}: {why}"))?;
        let json: Option<Value> = serde_json::from_str(&text).ok();
        match json {
            Some(json) if status.is_success() => Ok(json),
            Some(json) if json["error"].is_string() => {
                bail!(
                    "{base} answers {}: {}",
                    status.as_u16(),
                    json["error"].as_str().unwrap_or_default()
                )
            }
            _ => bail!(
                "{base} answers {}, but not in the format of plumbago",
                status.as_u16()
            ),
        }
    }
}
