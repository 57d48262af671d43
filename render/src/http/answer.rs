//! An answer of any route: its status, content type, headers and body.

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};

use super::events::Unread;
use super::{Params, Stream};
use crate::budget::Budget;
use crate::error::Result;
use crate::format::Buffer;
use crate::format::buffer::stopped;

/// An answer before it goes on the wire: cheap to clone, so that it can be shared.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The content type.
    pub content_type: &'static str,
    /// Further headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Content,
}

/// The body of an [`Answer`]: cheap to clone.
#[derive(Clone, Debug)]
pub enum Content {
    /// All of it. Bytes that were reserved stay so until they are dropped.
    Whole(Bytes),
    /// Formatted while it is sent.
    Stream(Stream),
    /// Broken off if it is read slowly and others need the room.
    Unread(Unread),
}

impl From<Unread> for Content {
    fn from(unread: Unread) -> Self {
        Self::Unread(unread)
    }
}

impl<T: Into<Bytes>> From<T> for Content {
    fn from(bytes: T) -> Self {
        Self::Whole(bytes.into())
    }
}

impl From<Buffer> for Content {
    fn from(buffer: Buffer) -> Self {
        Self::Whole(Bytes::from_owner(buffer))
    }
}

/// In the extensions of a response: what its body holds while the client reads it, if that is much.
#[derive(Clone, Copy, Debug)]
pub struct Holds {
    /// The bytes of memory that it holds for this client.
    pub own: u64,
    /// Those that it holds for all clients that read the same answer.
    pub shared: u64,
    /// Which answer that is: the address of it.
    pub answer: usize,
}

/// Bodies of fewer bytes hold little: the buffers of their connections are as large.
const MUCH: usize = 64 << 10;

impl Holds {
    fn bytes(bytes: &Bytes) -> Option<Self> {
        (bytes.len() > MUCH).then(|| Self {
            own: 0,
            shared: bytes.len() as u64,
            answer: bytes.as_ptr().addr(),
        })
    }
}

/// A value as text, indented if the request asks for `pretty`.
pub(super) fn json_text(value: &Value, params: &Params) -> Vec<u8> {
    let text = match params.has_value("pretty") {
        true => serde_json::to_vec_pretty(value),
        false => serde_json::to_vec(value),
    };
    // A value in memory is always valid JSON.
    text.unwrap_or_default()
}

fn write_json(out: &mut Buffer, value: &(impl Serialize + ?Sized), params: &Params) -> Result<()> {
    let written = match params.has_value("pretty") {
        true => serde_json::to_writer_pretty(out, value),
        false => serde_json::to_writer(out, value),
    };
    written.map_err(|error| stopped(error.into()))
}

/// The content type of JSON.
pub const JSON: &str = "application/json";

/// The content type of JSONP.
pub(super) const JAVASCRIPT: &str = "text/javascript";

impl Answer {
    /// A 200.
    pub fn ok(content_type: &'static str, body: impl Into<Content>) -> Self {
        Self {
            status: StatusCode::OK,
            content_type,
            headers: Vec::new(),
            body: body.into(),
        }
    }

    /// Plain text.
    pub fn text(status: StatusCode, text: impl Into<String>) -> Self {
        Self {
            status,
            ..Self::ok("text/plain; charset=utf-8", text.into())
        }
    }

    /// A value as JSON.
    pub fn value(status: StatusCode, value: &Value) -> Self {
        Self {
            status,
            ..Self::ok(JSON, value.to_string())
        }
    }

    /// `{"error": …}`
    pub fn error(status: StatusCode, sentence: &str) -> Self {
        Self::value(status, &json!({ "error": sentence }))
    }

    /// A value as JSON, indented if the request asks for `pretty`. The text is reserved in the
    /// memory of `budget` as it grows, until it is dropped.
    ///
    /// # Errors
    /// As [`Budget::reserve`].
    pub fn json(
        value: &(impl Serialize + ?Sized),
        params: &Params,
        budget: &Budget,
    ) -> Result<Self> {
        let mut out = Buffer::new(budget);
        write_json(&mut out, value, params)?;
        Ok(Self::ok(JSON, out))
    }

    /// As [`Answer::json`], in a call of the function that `jsonp` names.
    ///
    /// # Errors
    /// As [`Answer::json`].
    pub fn jsonp(
        value: &(impl Serialize + ?Sized),
        params: &Params,
        budget: &Budget,
    ) -> Result<Self> {
        let name = match Self::callback(params.get("jsonp")) {
            Ok(None) => return Self::json(value, params, budget),
            Ok(Some(name)) => name,
            Err(refusal) => return Ok(refusal),
        };
        let mut out = Buffer::new(budget);
        out.push_str(name)?;
        out.push_str("(")?;
        write_json(&mut out, value, params)?;
        out.push_str(")")?;
        Ok(Self::ok(JAVASCRIPT, out))
    }

    /// The function that JSONP calls. An empty name is absent.
    ///
    /// # Errors
    /// A refusal if `name` could not be the name of a function.
    pub(super) fn callback(name: Option<&str>) -> std::result::Result<Option<&str>, Self> {
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        let is_name = name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'$'));
        if is_name {
            return Ok(Some(name));
        }
        let sentence = "jsonp must be a name of letters, digits, _, . and $";
        Err(Self::error(StatusCode::BAD_REQUEST, sentence))
    }

    /// Adds a header, unless its value contains characters that a header must not contain.
    pub fn with(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }

    /// Lets caches keep the answer as `control` says.
    pub(super) fn kept(mut self, control: &str) -> Self {
        let about_caches = [header::CACHE_CONTROL, header::PRAGMA];
        self.headers
            .retain(|(name, _)| !about_caches.contains(name));
        self.with(header::CACHE_CONTROL, control)
    }

    /// Asks caches not to store the answer.
    pub fn uncached(self) -> Self {
        self.with(header::CACHE_CONTROL, "no-cache")
            .with(header::PRAGMA, "no-cache")
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let (held, body) = match self.body {
            Content::Whole(bytes) => (Holds::bytes(&bytes), Body::from(bytes)),
            Content::Unread(unread) => (None, unread.body()),
            Content::Stream(stream) => {
                let app = stream.app().clone();
                match stream.body() {
                    Ok(sending) => (Some(sending.held()), Body::new(sending)),
                    Err(error) => {
                        let status = app.refuse(&error);
                        return Self::text(status, error.to_string()).into_response();
                    }
                }
            }
        };
        let mut response = Response::new(body);
        if let Some(held) = held {
            response.extensions_mut().insert(held);
        }
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static(self.content_type),
        );
        headers.insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        for (name, value) in self.headers {
            headers.insert(name, value);
        }
        response
    }
}
