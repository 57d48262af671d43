//! Who may write over HTTP: tokens, and protection from pages elsewhere.
//!
//! 1. A page of another site must not make a browser write here. A request that names
//!    its `Origin` must come from a page of this very host (`Origin` and `Host` agree), and
//!    `Sec-Fetch-Site` must not say otherwise. A page whose host name was pointed at this machine
//!    (DNS rebinding) agrees with itself, so the `Host` must be one that we go by: an address,
//!    `localhost`, this machine's name, or one of `auth.hosts`.
//! 2. While all listeners are on loopback the `Host` is checked on every write. Once opened to a
//!    network it is checked on what comes from a browser: programs there use any name of this
//!    server.
//! 3. When tokens of either kind are set, a write needs one: one of `auth.tokens`, or for events
//!    also one of `auth.event_tokens`; as Bearer, as the password of Basic, as `X-Gitlab-Token` or
//!    `X-Rollbar-Access-Token`, or as the key of an `X-Hub-Signature-256` over the body. Who has
//!    one needs no `Host` that we know.
//! 4. Reading is open, but while all listeners are on loopback only under a `Host` that we go by:
//!    else a page elsewhere could read here under its own name, pointed at this machine. Who sends
//!    a token in a header may use any name.
//! 5. Tokens are compared by their digests: the time taken says nothing about them.

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use hmac::{Hmac, KeyInit, Mac};
use settings::Key;
use settings::options::Checked;
use sha2::{Digest as _, Sha256};

use super::Answer;
use super::params::whole;
use crate::budget::{Budget, Memory};

/// Most bytes in the body of one event or webhook.
pub const MAX_BODY: usize = 1024 * 1024;

settings::options! {
    /// `[auth]`.
    #[derive(PartialEq, Eq)]
    pub struct Options {
        /// If set, writing over HTTP needs one of these: "Authorization: Bearer TOKEN", Basic with the
        /// token as password, or X-Hub-Signature-256 made with it.
        tokens: Vec<String> = Vec::new() => check_tokens;
        /// Further tokens that are valid for events only. If only these are set, nothing but events can
        /// be written over HTTP.
        event_tokens: Vec<String> = Vec::new() => check_tokens;
        /// Host names by which this server is called (a reverse proxy's, for example), besides
        /// addresses, localhost, *.localhost and this machine's own name. Browsers may write under
        /// these names only; while all of render.http is on loopback, every request needs one of
        /// them, or a token.
        hosts: Vec<String> = Vec::new() => check_hosts;
    }
}

/// The keys of `[auth]`, for `plumbago config`.
pub const KEYS: &[Key] = Options::KEYS;

impl Options {
    /// Whether writing needs a token.
    pub fn wants_tokens(&self) -> bool {
        !(self.tokens.is_empty() && self.event_tokens.is_empty())
    }
}

/// Looks for tokens that could be guessed or never be sent.
fn check_tokens(tokens: &[String], checked: &mut Checked<'_>) {
    for (n, token) in tokens.iter().enumerate() {
        let sendable = token.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if token.is_empty() || token.trim() != token || !sendable {
            // The token itself stays out of the terminal and the log.
            let wrong = match token.is_empty() {
                true => "an empty token protects nothing",
                false => "the token cannot be sent in a header",
            };
            let accepted = "ASCII letters and digits, such as the output of `openssl rand -hex 16`";
            checked.refuse_item(n, wrong, accepted);
        }
    }
}

/// Looks for names that could never match.
fn check_hosts(hosts: &[String], checked: &mut Checked<'_>) {
    for (n, host) in hosts.iter().enumerate() {
        let (name, port) = split_port(host);
        let odd = |c: char| c.is_whitespace() || c.is_control() || "/@?#".contains(c);
        if host.is_empty() || port.is_some() || host.contains(odd) {
            let wrong = format!("{host:?} is not a host name without a port");
            let bare = name.rsplit("//").next().unwrap_or_default();
            let bare = bare.split(['/', ':']).next().unwrap_or_default();
            let accepted = match bare.is_empty() || bare.contains(odd) {
                true => "graphs.example.com",
                false => bare,
            };
            checked.refuse_item(n, wrong, &format!("{accepted:?}"));
        }
    }
}

/// The target of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Events: tokens of both kinds are good for it.
    Events,
    /// Anything else, such as tags.
    Everything,
}

/// Decides about writes. See the module for the rules.
#[derive(Debug)]
pub struct Guard {
    tokens: Vec<Token>,
    event_tokens: Vec<Token>,
    hosts: Vec<String>,
    loopback_only: bool,
    /// Where bodies are reserved that are read for their signature.
    memory: Arc<Memory>,
}

struct Token {
    text: String,
    digest: [u8; 32],
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            digest: Sha256::digest(text).into(),
        }
    }

    fn is(&self, given: &[u8]) -> bool {
        !given.is_empty() && self.digest == <[u8; 32]>::from(Sha256::digest(given))
    }

    /// Whether `signature` (hex digits) was made over `body` with this token as the key.
    fn signed(&self, body: &[u8], signature: &[u8]) -> bool {
        // Any client can compute a signature with an empty key.
        !self.text.is_empty()
            && Hmac::<Sha256>::new_from_slice(self.text.as_bytes()).is_ok_and(|mut mac| {
                mac.update(body);
                mac.verify_slice(signature).is_ok()
            })
    }
}

/// Why a write was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It came from a page of another host.
    #[error("pages of {0} may not write to this server")]
    Origin(String),
    /// It was sent to a name that we do not go by.
    #[error(
        "{0:?} is not a name of this server: if it belongs to a proxy or is an alias of this host, add it to auth.hosts"
    )]
    Host(String),
    /// No token, or none that is good for this.
    #[error("{0}")]
    Token(&'static str),
    /// The body is too long to be checked.
    #[error(
        "the body is longer than {MAX_BODY} bytes, or there is no memory for it (render.max_memory)"
    )]
    TooLong,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self {
            Self::Origin(_) | Self::Host(_) => StatusCode::FORBIDDEN,
            Self::Token(_) => StatusCode::UNAUTHORIZED,
            Self::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
        };
        let mut answer = Answer::error(status, &self.to_string());
        if status == StatusCode::UNAUTHORIZED {
            answer = answer.with(header::WWW_AUTHENTICATE, "Basic realm=\"plumbago\"");
        }
        answer.into_response()
    }
}

impl Guard {
    /// A guard by `options` for a server whose listeners are all on loopback, or not.
    pub fn new(options: &Options, loopback_only: bool) -> Self {
        let Options {
            tokens,
            event_tokens,
            hosts,
        } = options;
        let names = hosts.iter().map(|host| host.to_ascii_lowercase());
        Self {
            tokens: tokens.iter().map(|token| Token::new(token)).collect(),
            event_tokens: event_tokens.iter().map(|token| Token::new(token)).collect(),
            hosts: names.chain(machine_name()).collect(),
            loopback_only,
            memory: Memory::new(0),
        }
    }

    /// The guard, which reserves bodies in `memory` while it reads them.
    pub fn within(mut self, memory: &Arc<Memory>) -> Self {
        self.memory = Arc::clone(memory);
        self
    }

    /// Puts this guard in front of the routes of `router`: every method but GET, HEAD and OPTIONS
    /// is a write.
    pub fn protect<S>(self: &Arc<Self>, router: Router<S>, scope: Scope) -> Router<S>
    where
        S: Clone + Send + Sync + 'static,
    {
        let guard = Arc::clone(self);
        router.route_layer(from_fn(move |request: Request, next: Next| {
            let guard = Arc::clone(&guard);
            async move {
                match guard.admit(request, scope).await {
                    Ok(request) => next.run(request).await,
                    Err(refusal) => refusal.into_response(),
                }
            }
        }))
    }

    /// Puts the check of [`Guard::look`] in front of the routes of `router`, which change nothing.
    pub fn watch<S>(self: &Arc<Self>, router: Router<S>) -> Router<S>
    where
        S: Clone + Send + Sync + 'static,
    {
        let guard = Arc::clone(self);
        router.route_layer(from_fn(move |request: Request, next: Next| {
            let refused = guard.look(request.headers(), request.uri()).err();
            async move {
                match refused {
                    None => next.run(request).await,
                    Some(refusal) => refusal.into_response(),
                }
            }
        }))
    }

    /// Whether a request that only reads may be answered.
    ///
    /// # Errors
    /// The [`Refusal`] to answer with.
    pub fn look(&self, headers: &HeaderMap, uri: &Uri) -> Result<(), Refusal> {
        let host = called(headers, uri);
        // HTTP/1.0 clients may send no Host; browsers always do.
        let pass = !self.loopback_only || host.is_empty() || self.goes_by(host);
        if pass || self.has_token(headers, &[], Scope::Events) {
            return Ok(());
        }
        Err(Refusal::Host(host.to_owned()))
    }

    /// Lets a request pass, its body intact.
    ///
    /// # Errors
    /// The [`Refusal`] to answer with.
    pub async fn admit(&self, request: Request, scope: Scope) -> Result<Request, Refusal> {
        if [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method()) {
            self.look(request.headers(), request.uri())?;
            return Ok(request);
        }
        let (parts, body) = request.into_parts();
        let wanted = !(self.tokens.is_empty() && self.event_tokens.is_empty());
        // Rollbar's clients put their token into the message.
        let in_body = parts.uri.path().starts_with("/api/1/deploy");
        let (body, bytes) = if wanted && (in_body || parts.headers.contains_key(SIGNATURE)) {
            let budget = Budget::new(Arc::clone(&self.memory), None);
            let bytes = whole(body, &budget, MAX_BODY)
                .await
                .map_err(|_| Refusal::TooLong)?;
            (Body::from(bytes.clone()), bytes)
        } else {
            (body, Bytes::new())
        };
        let known = wanted
            && (self.has_token(&parts.headers, &bytes, scope)
                || in_body && self.is_good(&access_token(&bytes), scope));
        if wanted && !known {
            return Err(Refusal::Token(match scope {
                Scope::Events => "writing events needs a token of auth.tokens or auth.event_tokens",
                Scope::Everything => "writing needs a token of auth.tokens",
            }));
        }
        self.check_origin(&parts.headers, &parts.uri, known)?;
        Ok(Request::from_parts(parts, body))
    }

    fn check_origin(&self, headers: &HeaderMap, uri: &Uri, known: bool) -> Result<(), Refusal> {
        let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        let host = called(headers, uri);
        let origin = text("origin");
        if let Some(origin) = origin
            && !same_host(origin, host)
        {
            return Err(Refusal::Origin(origin.to_owned()));
        }
        let site = text("sec-fetch-site");
        if let Some(site) = site
            && !["same-origin", "none"].contains(&site)
        {
            return Err(Refusal::Origin("another site".to_owned()));
        }
        let from_browser = origin.is_some() || site.is_some();
        let checked = !known && (self.loopback_only || from_browser);
        // HTTP/1.0 clients may send no Host; browsers always do.
        let absent = host.is_empty() && !from_browser;
        if checked && !absent && !self.goes_by(host) {
            return Err(Refusal::Host(host.to_owned()));
        }
        Ok(())
    }

    /// Whether `host` (with or without a port) is a name that cannot be made to resolve to this server from outside.
    fn goes_by(&self, host: &str) -> bool {
        let (name, _) = split_port(host);
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let address = name.trim_start_matches('[').trim_end_matches(']');
        address.parse::<IpAddr>().is_ok()
            || name == "localhost"
            || name.ends_with(".localhost")
            || self.hosts.contains(&name)
    }

    /// The tokens that are good for `scope`.
    fn good(&self, scope: Scope) -> impl Iterator<Item = &Token> {
        let event_tokens: &[Token] = match scope {
            Scope::Events => &self.event_tokens,
            Scope::Everything => &[],
        };
        self.tokens.iter().chain(event_tokens)
    }

    fn is_good(&self, given: &[u8], scope: Scope) -> bool {
        self.good(scope).any(|token| token.is(given))
    }

    fn has_token(&self, headers: &HeaderMap, body: &[u8], scope: Scope) -> bool {
        let given = |bytes: &[u8]| self.is_good(bytes, scope);
        let plain = ["x-gitlab-token", "x-rollbar-access-token"];
        if plain.iter().any(|name| {
            headers
                .get(*name)
                .is_some_and(|value| given(value.as_bytes()))
        }) {
            return true;
        }
        if let Some(signature) = headers
            .get(SIGNATURE)
            .and_then(|value| hex(value.as_bytes()))
        {
            return self.good(scope).any(|token| token.signed(body, &signature));
        }
        let Some(authorization) = headers.get(header::AUTHORIZATION) else {
            return false;
        };
        let Some((scheme, rest)) = authorization
            .to_str()
            .ok()
            .and_then(|text| text.split_once(' '))
        else {
            return false;
        };
        if scheme.eq_ignore_ascii_case("bearer") {
            return given(rest.trim().as_bytes());
        }
        scheme.eq_ignore_ascii_case("basic")
            && base64::engine::general_purpose::STANDARD
                .decode(rest.trim())
                .is_ok_and(|pair| {
                    let password = pair.iter().position(|byte| *byte == b':').map(|at| at + 1);
                    password.is_some_and(|at| given(&pair[at..]))
                })
    }
}

/// The name and port by which the client calls this server; `"?"`, which is no name, if it gives
/// several.
fn called<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> &'a str {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (uri.authority(), hosts.next(), hosts.next()) {
        (Some(authority), _, _) => authority.as_str(),
        (None, Some(host), None) => host.to_str().unwrap_or("?"),
        (None, Some(_), Some(_)) => "?",
        (None, None, _) => "",
    }
}

const SIGNATURE: &str = "x-hub-signature-256";

/// The `access_token` of a message that is JSON or a form; empty if it has none.
fn access_token(body: &[u8]) -> Vec<u8> {
    const NAME: &str = "access_token";
    if let Ok(json) = serde_json::from_slice::<serde_json::Value>(body) {
        return json[NAME].as_str().unwrap_or_default().into();
    }
    let mut fields = form_urlencoded::parse(body);
    let token = fields.find(|(name, _)| name == NAME);
    token
        .map(|(_, token)| token.as_bytes().to_vec())
        .unwrap_or_default()
}

/// The bytes of `sha256=0123…`.
fn hex(signature: &[u8]) -> Option<Vec<u8>> {
    let digits = std::str::from_utf8(signature.strip_prefix(b"sha256=")?).ok()?;
    if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    (0..64)
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).ok())
        .collect()
}

/// Whether an `Origin` is that of the pages of `host`; the default port may be left out of either.
fn same_host(origin: &str, host: &str) -> bool {
    let (default, authority) = if let Some(authority) = origin.strip_prefix("http://") {
        ("80", authority)
    } else if let Some(authority) = origin.strip_prefix("https://") {
        ("443", authority)
    } else {
        return false;
    };
    let (origin_name, origin_port) = split_port(authority);
    let (name, port) = split_port(host);
    !name.is_empty()
        && origin_name.eq_ignore_ascii_case(name)
        && origin_port.unwrap_or(default) == port.unwrap_or(default)
}

fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') =>
        {
            (name, Some(port))
        }
        _ => (host, None),
    }
}

fn machine_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim().to_ascii_lowercase();
    (!name.is_empty()).then_some(name)
}
