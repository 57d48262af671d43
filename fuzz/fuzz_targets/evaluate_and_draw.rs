//! Requests for all formats and pictures, over series in memory, with a small budget of memory
//! and a short deadline: what a request reserves stays within the budget, what it allocates beside
//! that within [`SLACK`], the work ends by the deadline and [`TOLERANCE`], every answer is a 2xx or
//! 4xx or says that it took too long, and what was reserved is there for the next request.
//!
//! Targets are made of the examples of the functions, put into one another, with odd numbers and
//! texts in the place of their own, with variables whose texts are targets again; or of any text. With FUZZ_PRINT set, what each request took is
//! printed.
#![no_main]

#[path = "../../render/tests/support/counting.rs"]
mod counting;

use std::future::poll_fn;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::http::{Request, StatusCode, header};
use libfuzzer_sys::fuzz_target;
use plumbago_fuzz::bytes::Bytes;
use render::http::guard::{self, Guard};
use render::http::{App, router};
use render::memory::Memory;
use render::query::{Argument, Base, Call, Expression, Literal, parse};
use render::{Options, budget, events, functions};
use rustix::time::{ClockId, clock_gettime};
use tower::ServiceExt;

/// The memory of all requests.
const BUDGET: usize = 16 << 20;
/// What a request may allocate beyond what it has reserved: fonts and time zones that are read once,
/// buffers of the runtime, single small objects; up to 340 KB were seen.
const SLACK: usize = 2 << 20;
/// How long a request may take.
const DEADLINE: Duration = Duration::from_millis(300);
/// How much processor time may pass after the deadline before the work ends. The program is built
/// with checks and counters, which makes it several times slower.
const TOLERANCE: Duration = Duration::from_millis(700);
/// How long a request may take by the clock of a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(20);
/// The most bytes of a request's form.
const MAX_FORM: usize = 64 << 10;

struct Serving {
    runtime: tokio::runtime::Runtime,
    router: Router,
    memory: Arc<budget::Memory>,
    n_served: u64,
}

/// The clock of all requests: the last point of the series.
const NOW: i64 = 600_000;

fn start() -> Serving {
    let mut source = Memory::default();
    for host in ["a", "b", "c", "d"] {
        for (n, what) in ["hits", "errors", "free", "latency", "load"]
            .iter()
            .enumerate()
        {
            let value = |at: i64| match at % 7 {
                0 => whisper::ABSENT,
                _ => (at * (n as i64 + 3) % 101) as f64 - 7.5,
            };
            source.insert(
                &format!("web.{host}.{what}"),
                60,
                (0..NOW / 60).map(value).collect(),
            );
            source.insert(
                &format!("web.{host}.x.{what}"),
                600,
                (0..NOW / 600).map(value).collect(),
            );
        }
    }
    source.insert("fast", 1, (0..NOW).map(|at| (at % 1_000) as f64).collect());
    source.insert("m;host=a", 60, vec![1.0; 1_000]);
    source.insert("m;host=b", 60, vec![f64::INFINITY; 1_000]);
    // Keys that are there or not, by their text.
    let options = serde_json::json!({
        "now": NOW,
        "max_memory": format!("{}MiB", BUDGET >> 20),
        "timeout": format!("{}ms", DEADLINE.as_millis()),
        "concurrency": 1,
    });
    let options: Options = serde_json::from_value(options).expect("options");
    let path = format!("/dev/shm/plumbago-fuzz-draw-{}.db", std::process::id());
    let store = events::Store::open(&PathBuf::from(path), &events::Options::default()).unwrap();
    for at in 0..20 {
        let draft = events::Draft::new(format!("deploy {at}"), &["deploy", "web"]);
        store.insert_at(draft, (NOW - at * 977) as f64).unwrap();
    }
    let app = App::new(
        &options,
        Arc::new(source),
        Arc::new(Memory::default()),
        store,
    )
    .unwrap();
    let guard = Arc::new(Guard::new(&guard::Options::default(), true));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut serving = Serving {
        memory: Arc::clone(&app.memory),
        runtime,
        router: router(app, &guard),
        n_served: 0,
    };
    // What is read once, such as fonts and time zones.
    for format in ["png", "svg", "csv", "json"] {
        let form = format!("target=web.a.hits&from=-1h&format={format}&tz=Europe/Berlin");
        assert_eq!(serving.ask(form, usize::MAX).0, StatusCode::OK);
    }
    serving
}

impl Serving {
    /// Answers a request, whose client leaves after `most` bytes; status and bytes read.
    fn ask(&mut self, form: String, most: usize) -> (StatusCode, usize) {
        let request = Request::post("/render")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(form))
            .unwrap();
        let router = self.router.clone();
        self.runtime.block_on(async move {
            let response = router.oneshot(request).await.unwrap();
            let status = response.status();
            let mut body = response.into_body();
            let mut read = 0;
            while read < most
                && let Some(frame) =
                    poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
            {
                // An answer that is cut off ends so.
                let Ok(frame) = frame else { break };
                read += frame.data_ref().map_or(0, |data| data.len());
            }
            (status, read)
        })
    }
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fuzz_target!(|data: &[u8]| {
    static SERVING: Mutex<Option<Serving>> = Mutex::new(None);
    let mut serving = SERVING.lock().unwrap_or_else(PoisonError::into_inner);
    let serving = serving.get_or_insert_with(start);
    let mut input = Bytes(data);
    let form = form(&mut input);
    let most = match input.below(8) {
        0 => 0,
        1 => 10_000,
        _ => usize::MAX,
    };
    let shown = form.clone();
    serving.memory.restart_peak();
    let before = counting::restart();
    let (began, processor) = (Instant::now(), processor_time());
    let (status, read) = serving.ask(form, most);
    let (took, worked) = (began.elapsed(), processor_time() - processor);
    let peak = counting::most_beyond(before);
    let reserved = serving.memory.peak() as usize;
    let beside = peak.saturating_sub(reserved);
    if std::env::var_os("FUZZ_PRINT").is_some() {
        eprintln!(
            "beside {beside} reserved {reserved} peak {peak} {status} read {read} worked {worked:?} took {took:?} form {}",
            shown.len()
        );
    }
    assert!(reserved <= BUDGET, "{reserved} bytes reserved: {shown}");
    assert!(
        beside <= SLACK,
        "{peak} bytes, {reserved} of them reserved, {status}, {read} bytes of answer: {shown}"
    );
    assert!(
        worked <= DEADLINE + TOLERANCE,
        "{worked:?} of work, {took:?}, {status}: {shown}"
    );
    assert!(took <= PATIENCE, "{took:?}, {status}: {shown}");
    let is_fine = status == StatusCode::OK
        || status.is_client_error()
        || status == StatusCode::SERVICE_UNAVAILABLE;
    assert!(is_fine, "{status}: {shown}");
    serving.n_served += 1;
    if serving.n_served.is_multiple_of(32) || most == 0 {
        // Much of the budget is needed, and has to be there; the time may not be.
        let form = "target=fast&from=0&format=json&maxDataPoints=10".to_owned();
        let (status, _) = serving.ask(form, usize::MAX);
        assert_ne!(status, StatusCode::PAYLOAD_TOO_LARGE, "after {shown}");
    }
});

const FORMATS: [&str; 10] = [
    "png", "svg", "json", "csv", "raw", "pickle", "msgpack", "dygraph", "rickshaw", "",
];
/// Further parameters of a request.
const FURTHER: &[&str] = &[
    "graphType=pie",
    "width=4096",
    "height=4096",
    "width=1&height=1",
    "lineWidth=1000",
    "areaMode=stacked",
    "areaMode=all",
    "lineMode=staircase",
    "lineMode=connected",
    "logBase=2",
    "maxDataPoints=1",
    "maxDataPoints=100000",
    "noNullPoints=1",
    "meta=1",
    "events=*",
    "events=none",
    "jsonp=x",
    "pretty=1",
    "fontSize=400",
    "minorY=100",
    "yStep=0.0001",
    "minXStep=0.001",
    "yMax=1e300",
    "title=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "hideLegend=false",
    "uniqueLegend=1",
    "pixelRatio=8",
    "drawNullAsZero=1",
    "xFilesFactor=0.9",
    "tz=America/New_York",
    "strict=1",
    "template[a]=web.a",
    "template[b]=$a$a$a$a$a$a$a$a",
    "template[t]=template(applyByNode(web.a.hits,0,$t))",
    "template[t]=template(group(aliasQuery(web.*.hits,'.*',$t,'%d'),useSeriesAbove(fast,0,'.*',$t)))",
    "template[t]=template(template(absolute($t),'b'),b)",
    "colorList=red,blue",
    "bgcolor=00000000",
    "margin=1000",
    "rightDashed=0.001",
    "yAxisSide=right",
];
const NUMBERS: [f64; 14] = [
    0.0, 1.0, -1.0, 2.0, 0.5, 0.001, 1e-9, 100.0, 4_000.0, 1e6, 1e9, 1e18, -1e9, 1e300,
];
const TEXTS: [&str; 20] = [
    "1s",
    "1min",
    "1h",
    "1d",
    "1y",
    "100y",
    "0s",
    "-1h",
    "sum",
    "max",
    "last",
    "count",
    "(.*)",
    "(a|b)*",
    "\\\\1\\\\1\\\\1\\\\1\\\\1\\\\1\\\\1\\\\1",
    "x",
    "",
    "%d",
    "red",
    "$a$b",
];
const PATHS: [&str; 10] = [
    "web.*.hits",
    "web.*.*",
    "web.*.x.*",
    "fast",
    "web.a.hits",
    "nosuch",
    "web.{a,b}.load",
    "seriesByTag('name=m')",
    "web.*.errors",
    "*",
];

/// The form of a request.
fn form(input: &mut Bytes<'_>) -> String {
    let from = *input.pick(&[
        &"0", &"-1h", &"-1d", &"-10min", &"-100y", &"500000", &"700000",
    ]);
    let mut form = format!("from={from}&format={}", FORMATS[input.below(FORMATS.len())]);
    for _ in 0..input.below(5) {
        form.push('&');
        form += FURTHER[input.below(FURTHER.len())];
    }
    for _ in 0..1 + input.below(4) {
        let target = if input.below(8) == 0 {
            let n = input.below(200);
            String::from_utf8_lossy(input.take(n)).into_owned()
        } else {
            let target = target(input, 4);
            match input.below(4) {
                0 => format!("template({target})"),
                _ => target.to_string(),
            }
        };
        let escaped: String = target.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let times = [1, 1, 1, 2, 20, 1_000][input.below(6)];
        for _ in 0..times {
            if form.len() + escaped.len() + 8 > MAX_FORM {
                break;
            }
            form += "&target=";
            form += &escaped;
        }
    }
    form
}

/// A target, of functions within functions.
fn target(input: &mut Bytes<'_>, depth: usize) -> Expression {
    let path = |input: &mut Bytes<'_>| {
        parse(PATHS[input.below(PATHS.len())])
            .expect("a path")
            .expression
    };
    if depth == 0 || input.below(6) == 0 {
        return path(input);
    }
    let all: Vec<_> = functions::all().collect();
    let number = usize::from(input.byte()) << 8 | usize::from(input.byte());
    let (_, _, function) = all[number % all.len()];
    let mut expression = match parse(function.example) {
        Ok(parsed) => parsed.expression,
        Err(_) => return path(input),
    };
    match &mut expression.base {
        Base::Call(call) => change(call, input, depth - 1),
        Base::Path(_) | Base::Template(_) => {}
    }
    for call in &mut expression.piped {
        change(call, input, depth - 1);
    }
    expression
}

/// Puts other things in the place of a call's arguments.
fn change(call: &mut Call, input: &mut Bytes<'_>, depth: usize) {
    if call.name == "seriesByTag" {
        return;
    }
    let keywords = call.keywords.iter_mut().map(|(_, argument)| argument);
    for argument in call.args.iter_mut().chain(keywords) {
        match argument {
            Argument::Expression(expression) => *expression = target(input, depth),
            // A variable of the request, which may be a target.
            Argument::Literal(Literal::Text(_)) if input.below(6) == 0 => {
                *argument = Argument::Expression(parse("$t").expect("a path").expression);
            }
            Argument::Literal(literal) if input.below(3) == 0 => match literal {
                Literal::Integer(number) => *number = NUMBERS[input.below(NUMBERS.len())] as i64,
                Literal::Float(number) => *number = NUMBERS[input.below(NUMBERS.len())],
                Literal::Text(text) => text.text = TEXTS[input.below(TEXTS.len())].to_owned(),
                _ => {}
            },
            Argument::Literal(_) => {}
        }
    }
}
