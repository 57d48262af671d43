//! Who may read and write, from where, and with which token.

use super::*;

fn options(tokens: &[&str], event_tokens: &[&str], hosts: &[&str]) -> Options {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    Options {
        tokens: owned(tokens),
        event_tokens: owned(event_tokens),
        hosts: owned(hosts),
    }
}

fn admit(
    guard: &Guard,
    scope: Scope,
    headers: &[(&str, &str)],
    body: &'static str,
) -> Result<(), Refusal> {
    let mut request = Request::builder().method("POST").uri("/events/");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::from(body)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(guard.admit(request, scope)).map(drop)
}

#[test]
fn pages_elsewhere_may_not_write() {
    let guard = Guard::new(&options(&[], &[], &["graphs.example.com"]), true);
    let admit = |headers: &[(&str, &str)]| admit(&guard, Scope::Events, headers, "");
    for good in [
        &[("host", "127.0.0.1:8080")][..],
        &[("host", "localhost")],
        &[("host", "[::1]:8080"), ("origin", "http://[::1]:8080")],
        &[
            ("host", "LOCALHOST:8080"),
            ("origin", "http://localhost:8080"),
            ("sec-fetch-site", "same-origin"),
        ],
        &[
            ("host", "graphs.example.com"),
            ("origin", "https://graphs.example.com"),
        ],
        &[
            ("host", "graphs.example.com:443"),
            ("origin", "https://graphs.example.com"),
        ],
        &[],
    ] {
        assert_eq!(admit(good), Ok(()), "{good:?}");
    }
    for bad in [
        &[
            ("host", "127.0.0.1:8080"),
            ("origin", "http://evil.example"),
        ][..],
        &[("host", "127.0.0.1:8080"), ("origin", "null")],
        &[
            ("host", "127.0.0.1:8080"),
            ("origin", "http://127.0.0.1:9090"),
        ],
        &[("host", "127.0.0.1:8080"), ("sec-fetch-site", "cross-site")],
        &[("origin", "http://evil.example")],
        // Rebinding: the page's own name was pointed at us.
        &[("host", "evil.example"), ("origin", "http://evil.example")],
        &[("host", "evil.example:8080")],
        &[("host", "localhost.evil.example")],
        &[("host", "127.0.0.1.evil.example")],
        &[("host", "127.0.0.1:8080"), ("host", "evil.example")],
    ] {
        assert!(admit(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn on_a_network_programs_may_use_any_name() {
    let guard = Guard::new(&Options::default(), false);
    let admit = |headers: &[(&str, &str)]| admit(&guard, Scope::Events, headers, "");
    assert_eq!(admit(&[("host", "graphite:8080")]), Ok(()));
    let rebound = [("host", "evil.example"), ("origin", "http://evil.example")];
    assert_eq!(
        admit(&rebound),
        Err(Refusal::Host("evil.example".to_owned()))
    );
}

#[test]
fn reading_on_loopback_needs_a_name_of_ours_or_a_token() {
    let guard = Guard::new(&options(&[], &["ev"], &["graphs.example.com"]), true);
    let look = |guard: &Guard, given: &[(&'static str, &str)]| {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.insert(*name, value.parse().unwrap());
        }
        guard.look(&headers, &Uri::from_static("/render"))
    };
    for good in [
        "127.0.0.1:8080",
        "localhost",
        "[::1]:8080",
        "a.localhost:1",
        "Graphs.Example.com",
    ] {
        assert_eq!(look(&guard, &[("host", good)]), Ok(()), "{good}");
    }
    assert_eq!(look(&guard, &[]), Ok(()));
    for bad in [
        "evil.com",
        "127.0.0.1.evil.com",
        "localhost.evil.com",
        "x@evil.com",
    ] {
        let refusal = look(&guard, &[("host", bad)]).unwrap_err();
        assert!(refusal.to_string().contains("auth.hosts"), "{refusal}");
        let token = ("authorization", "Bearer ev");
        assert_eq!(look(&guard, &[("host", bad), token]), Ok(()));
    }
    let absolute = Uri::from_static("http://evil.com/render");
    assert!(guard.look(&HeaderMap::new(), &absolute).is_err());
    let network = Guard::new(&Options::default(), false);
    assert_eq!(look(&network, &[("host", "graphite")]), Ok(()));
}

#[test]
fn tokens_open_what_they_are_for() {
    let guard = Guard::new(&options(&["all"], &["ev"], &[]), true);
    let body = "{\"zen\": 1}";
    // printf '{"zen": 1}' | openssl dgst -sha256 -hmac ev
    let signed = "sha256=dfae95ed0865cf9f883a1ef5fb5977e135235f22504195bebe34a757f0ccf6db";
    let forged = "sha256=dfae95ed0865cf9f883a1ef5fb5977e135235f22504195bebe34a757f0ccf6dc";
    for (headers, events, everything) in [
        (&[][..], false, false),
        (&[("authorization", "Bearer all")], true, true),
        (&[("authorization", "bearer ev")], true, false),
        (&[("authorization", "Bearer al")], false, false),
        (&[("authorization", "Bearer ")], false, false),
        (&[("authorization", "Basic ZGVwbG95OmFsbA==")], true, true),
        (&[("authorization", "Basic OmV2")], true, false),
        (&[("authorization", "Basic ZXY=")], false, false),
        (&[("authorization", "Basic %%%")], false, false),
        (&[("x-gitlab-token", "ev")], true, false),
        (&[(SIGNATURE, signed)], true, false),
        (&[(SIGNATURE, forged)], false, false),
        (&[(SIGNATURE, "sha256=00")], false, false),
        (
            &[("authorization", "Bearer all"), ("host", "any.example")],
            true,
            true,
        ),
        (
            &[
                ("authorization", "Bearer all"),
                ("origin", "http://evil.example"),
            ],
            false,
            false,
        ),
    ] {
        assert_eq!(
            admit(&guard, Scope::Events, headers, body).is_ok(),
            events,
            "{headers:?}"
        );
        assert_eq!(
            admit(&guard, Scope::Everything, headers, body).is_ok(),
            everything,
            "{headers:?}"
        );
    }
    let events_only = Guard::new(&options(&[], &["ev"], &[]), true);
    assert!(admit(&events_only, Scope::Events, &[], "").is_err());
    let bearer = [("authorization", "Bearer ev")];
    assert_eq!(admit(&events_only, Scope::Events, &bearer, ""), Ok(()));
    assert!(admit(&events_only, Scope::Everything, &bearer, "").is_err());
    assert!(!format!("{guard:?}").contains("all"));
}
