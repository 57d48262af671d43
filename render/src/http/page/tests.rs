//! The HTML of the pages: what it contains, and what it must not contain.

use axum::body::Body;
use axum::http::Request;
use crossbeam::channel::{Receiver, bounded};
use tower::ServiceExt;

use super::*;
use crate::budget;
use crate::events::Status;
use crate::impact::{Correction, Outcome, Report, SeriesReport, Worth};
use crate::memory::Memory;
use crate::source::{FetchRange, Fetched, SourceError};
use crate::verdicts::finding_key;

struct Around {
    addresses: BTreeMap<&'static str, Vec<String>>,
    events: Vec<Event>,
}

impl Host for Around {
    fn received(&self) -> u64 {
        1_234
    }

    fn addresses(&self) -> &BTreeMap<&'static str, Vec<String>> {
        &self.addresses
    }

    fn events(&self, _: &str, _: f64, _: f64, _: usize) -> Vec<Event> {
        self.events.clone()
    }

    fn banner(&self) -> Option<&str> {
        None
    }
}

/// A store that does not answer until the test has ended.
struct Silent(Receiver<()>);

impl Source for Silent {
    fn find(&self, _: &str, budget: &Budget) -> Result<Vec<Node>, SourceError> {
        let _ = self.0.recv();
        budget.check()?;
        Ok(Vec::new())
    }

    fn find_tagged(&self, _: &[&str], _: &Budget) -> Result<Vec<String>, SourceError> {
        Ok(Vec::new())
    }

    fn fetch(&self, _: &str, _: FetchRange) -> Result<Option<Fetched>, SourceError> {
        Ok(None)
    }
}

/// A server whose requests have no time.
struct Hurried(Around);

impl Host for Hurried {
    fn received(&self) -> u64 {
        self.0.received()
    }

    fn addresses(&self) -> &BTreeMap<&'static str, Vec<String>> {
        self.0.addresses()
    }

    fn events(&self, _: &str, _: f64, _: f64, _: usize) -> Vec<Event> {
        Vec::new()
    }

    fn budget(&self) -> Budget {
        Budget::new(budget::Memory::new(0), Some(Instant::now()))
    }

    fn banner(&self) -> Option<&str> {
        None
    }
}

#[tokio::test]
async fn searches_of_a_silent_store_end_with_their_time_and_hold_no_thread() {
    let (ended, silent) = bounded(0);
    let around = Around {
        addresses: BTreeMap::new(),
        events: Vec::new(),
    };
    let dashboards = Dashboards::load(tempfile::tempdir().unwrap().path());
    let source = Arc::new(Silent(silent));
    let page = Page::new(Arc::new(Hurried(around)), source, dashboards);
    let routes = page.clone().routes();
    for _ in 0..2 * PLACES {
        let request = Request::get("/page/search?q=web").body(Body::empty());
        let answer = routes.clone().oneshot(request.unwrap()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(page.0.places.available_permits(), PLACES);
    drop(ended);
}

#[tokio::test]
async fn a_page_whose_events_do_not_fit_is_refused() {
    let memory = budget::Memory::new(64 << 10);
    let large = Event {
        what: "web".to_owned(),
        data: "d".repeat(200_000),
        tags: vec!["deploy".to_owned()],
        ..Event::default()
    };
    let page = page(&["stats.a"], vec![large], "");
    let Page(inner, _) = &page;
    let asked = |memory: &Arc<budget::Memory>| {
        let budget = Budget::new(Arc::clone(memory), None);
        Page(Arc::clone(inner), Some(Arc::new(Asked::new(budget))))
    };
    let refused = asked(&memory);
    assert!(refused.events("deploy", 0.0, 1.0, 5).is_empty());
    let answer = refused.kept(html_answer(StatusCode::OK, "half".to_owned()));
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    drop(refused);
    assert_eq!(memory.used(), 0);
    let memory = budget::Memory::new(4 << 20);
    let shown = asked(&memory);
    assert_eq!(shown.events("deploy", 0.0, 1.0, 5).len(), 1);
    assert!(memory.used() > 600_000, "{}", memory.used());
    let answer = shown.kept(html_answer(StatusCode::OK, "whole".to_owned()));
    assert_eq!(answer.status, StatusCode::OK);
    drop(shown);
    assert_eq!(memory.used(), 5, "the page until it is sent");
    drop(answer);
    assert_eq!(memory.used(), 0);
}

fn page(names: &[&str], events: Vec<Event>, toml: &str) -> Page {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("end-user.toml"), toml).unwrap();
    let dashboards = Dashboards::load(dir.path());
    let addresses = BTreeMap::from([
        ("statsd.udp", vec!["0.0.0.0:9125".to_owned()]),
        ("render.http", vec!["127.0.0.1:9080".to_owned()]),
    ]);
    let mut source = Memory::default();
    for name in names {
        source.insert(name, 10, vec![1.0]);
    }
    let host = Around { addresses, events };
    Page::new(Arc::new(host), Arc::new(source), dashboards)
}

fn shown(page: &Page, query: &str) -> String {
    let dashboards = page.dashboards();
    let front = dashboards.get(FRONT).unwrap();
    let pairs = form_urlencoded::parse(query.as_bytes()).into_owned();
    let mut view = View::of(&Params::from_pairs(pairs.collect()));
    let (variables, choice) = variables::offered(page, front, &mut view);
    let panels = page.shown(front, &choice);
    dashboard_page(
        page,
        FRONT,
        front,
        &panels,
        (&view, &variables),
        ("", Some("http://a/")),
    )
}

#[test]
fn without_data_the_page_says_what_to_send() {
    let page = page(
        &["stats.statsd.packets", "carbon.agents.a.cpu"],
        Vec::new(),
        "title = \"T\"\n[[panels]]\ntitle = \"All\"\nneeds = \"**\"\ntargets = [\"a\"]\n",
    );
    assert!(!page.has_data(FRONT) && page.elsewhere().is_none());
    let text = start_page(&page, &View::default(), true);
    assert!(text.contains("nc -u -w1 127.0.0.1 9125"), "{text}");
    assert!(text.contains("curl http://127.0.0.1:9080/events/"));
    assert!(text.contains("received: <strong>1,234 metrics</strong>"));
    assert!(
        !text.contains("carbon's line"),
        "no listener, no advice to use it"
    );
}

#[test]
fn own_series_count_where_a_panel_names_them() {
    let toml = "title = \"T\"\n[[panels]]\ntitle = \"All\"\nneeds = \"**\"\ntargets = [\"a\"]\n";
    let page = page(&["plumbago.deploys.all.per_day"], Vec::new(), toml);
    assert!(!page.has_data(FRONT) && page.has_data("deploys"));
}

#[test]
fn panels_are_pictures_with_events_and_only_where_there_is_data() {
    let toml = "title = \"T\"\nevents = \"deploy web\"\n\
        [[panels]]\ntitle = \"Here\"\nneeds = \"a.b\"\ntargets = [\"a.b\", \"a.c\"]\nparams = { yMin = \"0\" }\n\
        [[panels]]\ntitle = \"Not here\"\nneeds = \"q.r\"\ntargets = [\"q.r\"]\n";
    let page = page(&["a.b"], Vec::new(), toml);
    let text = shown(&page, "from=-6h");
    assert!(
        text.contains("render?target=a.b&amp;target=a.c&amp;"),
        "{text}"
    );
    assert!(
        text.contains("events=deploy+web") && text.contains("from=-6h") && text.contains("yMin=0")
    );
    assert!(text.contains("<noscript><picture>") && !text.contains("Not here"));
    let fallen_back = shown(&page, "from=%3Cb%3E");
    assert!(fallen_back.contains("from=-1h"), "{fallen_back}");
    assert!(
        fallen_back.contains("from: &quot;&lt;b&gt;&quot; is not a time"),
        "an invalid range is reported: {fallen_back}"
    );
}

#[test]
fn nothing_foreign_reaches_the_markup() {
    let hostile = "\"><script>alert(1)</script><x y='";
    let event = Event {
        what: hostile.to_owned(),
        data: hostile.to_owned(),
        tags: vec![hostile.to_owned()],
        link: Some("javascript:alert(1)".to_owned()),
        when: 1e300,
        ..Event::default()
    };
    let linked = Event {
        link: Some(format!("https://a/{hostile}")),
        ..event.clone()
    };
    let toml = toml::toml! {
        title = "TITLE"
        note = "NOTE"
        [[panels]]
        title = "PANEL"
        targets = ["TARGET"]
    };
    let mut text = toml.to_string();
    for word in ["TITLE", "NOTE", "PANEL", "TARGET"] {
        let quoted = toml::Value::String(hostile.to_owned()).to_string();
        text = text.replace(&format!("\"{word}\""), &quoted);
    }
    let page = page(&["a"], vec![event, linked], &text);
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("events", hostile)
        .append_pair("theme", hostile)
        .finish();
    for text in [shown(&page, &query), missing(&page, hostile, "../")] {
        assert!(!text.contains("<script>") && !text.contains("<x"), "{text}");
        assert!(!text.contains("href=\"javascript:"), "{text}");
    }
}

#[test]
fn the_strip_names_the_newest_deploy_and_what_is_under_way() {
    let at = live::now();
    let event = |minutes: f64, what: &str, status| Event {
        what: what.to_owned(),
        data: "bob: new session store\nmore".to_owned(),
        when: at - minutes * 60.0,
        status,
        id: 7,
        ..Event::default()
    };
    let events = vec![
        event(30.0, "search 9", Status::Started),
        event(20.0, "web 1", Status::Succeeded),
        event(7.0, "web 2", Status::Failed),
    ];
    let page = page(&["a.b"], events, "title = \"T\"\n");
    let text = shown(&page, "");
    for part in [
        "No data received since the start",
        ">7 min ago</time>: <a href=\"events/7/\"><strong>web 2</strong></a>",
        "class=\"item deploy loud failed\"",
        "<span class=\"by\">bob: new session store</span>",
        "<strong>search 9</strong></a><span class=\"badge started\">under way</span>",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let before_list = text.split("<main").next().unwrap();
    assert!(!before_list.contains("web 1"), "only the newest deploy");
}

/// A deploy that turned out worse an hour ago, what the server said of that, and a newer deploy.
fn after_a_harmful_deploy() -> Vec<Event> {
    let at = live::now();
    let series = SeriesReport {
        name: "stats.errors".to_owned(),
        sentence: "stats.errors rose from 1 to 9 (9x), 5 times its own largest usual change; more"
            .to_owned(),
        worth: Worth::Worse,
        ..SeriesReport::default()
    };
    let report = Report {
        verdict: Outcome::Worse,
        sentence: series.sentence.clone(),
        complete: true,
        series: vec![series],
        ..Report::default()
    };
    let event = |id: i64, minutes: f64, what: &str| Event {
        id,
        what: what.to_owned(),
        tags: vec!["deploy".to_owned()],
        when: at - minutes * 60.0,
        ..Event::default()
    };
    let harmful = Event {
        data: "bob: new payment provider".to_owned(),
        impact: Some(Box::new(report)),
        ..event(3, 60.0, "checkout 3.0")
    };
    let finding = Event {
        key: Some(finding_key(3)),
        ..event(4, 10.0, "worse: checkout 3.0")
    };
    vec![harmful, finding, event(5, 2.0, "web 2.4")]
}

#[test]
fn a_newer_deploy_does_not_displace_a_harmful_one() {
    let events = after_a_harmful_deploy();
    let toml = "title = \"T\"\n";
    let text = shown(&page(&["a.b"], events.clone(), toml), "");
    let strip = text.split("<header").next().unwrap();
    let harm = strip.split("Last harmful deploy").nth(1).unwrap();
    for part in [
        "<strong>checkout 3.0</strong>",
        ">worse</span>",
        ">bob: new payment provider<",
        ">stats.errors rose from 1 to 9 (9x)<",
    ] {
        assert!(harm.contains(part), "{part}: {strip}");
    }
    // A second one within minutes may not be the cause.
    let mut both = events.clone();
    both[2].impact = events[0].impact.clone();
    let text = shown(&page(&["a.b"], both.clone(), toml), "");
    let strip = text.split("<header").next().unwrap();
    let (newest, other) = strip.split_once("Also harmful").unwrap();
    assert!(
        newest.contains("web 2.4") && other.contains("checkout 3.0"),
        "{strip}"
    );
    both[0].status = Status::RolledBack;
    let text = shown(&page(&["a.b"], both, toml), "");
    assert!(!text.contains("Also harmful"), "{text}");
    // A person said that it was meant, or it is long ago.
    let mut expected = events.clone();
    expected[0].impact.as_mut().unwrap().correction = Some(Correction::Expected);
    let mut old = events;
    old[0].when -= 86_400.0;
    for events in [expected, old] {
        let text = shown(&page(&["a.b"], events, toml), "");
        assert!(!text.contains("Last harmful deploy"), "{text}");
    }
}

#[test]
fn a_finding_is_listed_with_its_deploy() {
    let events = after_a_harmful_deploy();
    let listed = |events: Vec<Event>| {
        let text = shown(&page(&["a.b"], events, "title = \"T\"\n"), "");
        let list = text.split("<section class=\"events\"").nth(1).unwrap();
        list.to_owned()
    };
    let list = listed(events.clone());
    assert!(list.contains("checkout 3.0") && list.contains("stats.errors rose from 1 to 9"));
    assert!(!list.contains("worse: checkout 3.0"), "{list}");
    // Its deploy is not in the list.
    assert!(listed(events[1..].to_vec()).contains("worse: checkout 3.0"));
}

#[test]
fn a_deploy_has_graphs_of_what_it_changed() {
    let events = after_a_harmful_deploy();
    let (from, deploy) = (events[0].when - 5_400.0, events[0].clone());
    let page = page(&["a.b"], events, "title = \"T\"\n");
    let written =
        |event: &Event| deploy::deploy_page(&page, event, &Params::from_pairs(Vec::new()), "../");
    let text = written(&deploy);
    for part in [
        format!(
            "<div class=\"board whole\" data-from=\"{from:.0}\"><div class=\"panels\"><figure data-query=\"target=stats.errors&amp;"
        ),
        // Time goes on: the range has no end yet.
        "data-refresh=\"10\"".to_owned(),
        "worse, so far</span> rose from 1 to 9".to_owned(),
        "rollback-of 3".to_owned(),
    ] {
        assert!(text.contains(&part), "{part}: {text}");
    }
    let undone = Event {
        status: Status::RolledBack,
        when: deploy.when - 86_400.0,
        ..deploy
    };
    let text = written(&undone);
    assert!(
        !text.contains("rollback-of") && text.contains("data-until="),
        "{text}"
    );
}

/// Values of variables, and so patterns, may be anything.
#[test]
fn the_numbers_of_found_series_are_kept_for_few_patterns() {
    let page = page(&["a.b"], Vec::new(), "");
    let found = |needs: String| {
        page.found(&Panel {
            needs,
            ..Panel::of(Vec::new())
        })
    };
    for n in 0..2 * MOST_NEEDS {
        assert_eq!(found(format!("a.x{n}")), 0);
    }
    assert_eq!(page.0.found.read().len(), 0);
    for n in 0..2 * MOST_NEEDS {
        assert_eq!(found(format!("a.{{b,x{n}}}")), 1);
    }
    let n_kept = page.0.found.read().len();
    assert!((1..=MOST_NEEDS).contains(&n_kept), "{n_kept} kept");
}
