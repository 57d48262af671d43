//! A server behind a reverse proxy that passes a path on.

mod support;

use std::fs;

use support::Server;

#[test]
fn the_page_the_api_and_events_are_below_the_base_path() {
    let mut server = Server::prepared(&[("render.base_path", "/graphite")]);
    server.run();
    server.statsd("shop.logins:3|c");
    let render = "/graphite/render?format=json&from=-5min&target=stats_counts.shop.logins";
    server.wait_until("the series", |server| {
        let found = server.json("/graphite/metrics/find?query=stats_counts.shop.*");
        found.as_array().is_some_and(|nodes| !nodes.is_empty())
    });
    assert_eq!(server.json(render)[0]["target"], "stats_counts.shop.logins");
    let start = server.get("/graphite/start").text();
    assert!(start.contains("/graphite/events/ -d"), "{start}");
    let page = server.get("/graphite/").text();
    for link in ["href=\"/", "src=\"/", "action=\"/"] {
        assert!(!page.contains(link), "{link} on {page}");
    }
    let style = page.split("href=\"page/").nth(2).unwrap();
    let style = style.split('"').next().unwrap();
    let style = server.get(&format!("/graphite/page/{style}"));
    assert_eq!(style.status, 200);
    assert!(style.head.contains("text/css"), "{}", style.head);
    let redirect = server.get("/graphite");
    assert_eq!(redirect.status, 308);
    assert!(
        redirect.head.contains("location: /graphite/\r\n"),
        "{}",
        redirect.head
    );

    let posted = server.post(
        "/graphite/events/",
        r#"{"what": "web 2", "tags": "deploy"}"#,
    );
    assert_eq!(posted.status, 200);
    let location = posted
        .head
        .lines()
        .find_map(|line| line.strip_prefix("location: "));
    let location = location.unwrap();
    assert_eq!(location, "/graphite/events/1/");
    let event = server.get(location).text();
    assert!(event.contains("href=\"../\""), "{event}");
    let list = server.get("/graphite/events/").text();
    for link in ["href=\"../events/1/\"", "href=\"../events/?tags=deploy\""] {
        assert!(list.contains(link), "{link} not on {list}");
    }
    for link in ["href=\"/", "src=\"/", "action=\"/"] {
        assert!(!list.contains(link), "{link} on {list}");
    }

    for path in ["/healthz", "/readyz", "/metrics", "/graphite/healthz"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    for path in [
        "/",
        "/render?target=a&format=json",
        "/events/",
        "/graphites/render",
        "/start",
    ] {
        assert_eq!(server.get(path).status, 404, "{path}");
    }
}

#[test]
fn a_malformed_base_path_is_refused_by_the_check() {
    let directory = tempfile::tempdir().unwrap();
    for path in ["graphite", "/graphite/", "/metrics"] {
        let file = directory.path().join("plumbago.toml");
        fs::write(&file, format!("[render]\nbase_path = \"{path}\"\n")).unwrap();
        let checked = support::run(&["config", "--check", file.to_str().unwrap()]);
        assert!(!checked.status.success(), "{path}");
        let said = [checked.stdout, checked.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains("plumbago.toml:2: render.base_path"), "{said}");
    }
}
