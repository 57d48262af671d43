//! Instructions for sending data, and the answer to an unknown dashboard.

use maud::{Markup, html};

use super::Page;
use super::layout::{Layout, encode};
use super::view::View;
use super::words::count;

/// Instructions for sending data. `waiting`: the store has no series to draw yet, and the page
/// switches to the dashboard when it has.
pub(super) fn start_page(page: &Page, view: &View, waiting: bool) -> String {
    let host = &page.0.host;
    let content = html! {
        div class="start" {
            h1 { @if waiting { "Waiting for the first metric" } @else { "Send data" } }
            p class="count" data-received={ "received" } data-start[waiting] {
                "received: " strong { (count(host.received(), "metric")) }
                @if waiting {
                    br;
                    span class="quiet" {
                        "The first graph appears after the first flush; this page then switches to it."
                    }
                }
            }
            @if let Some((ip, port)) = first_address(page, "statsd.udp") {
                (statsd_examples(&ip, &port))
            }
            @if let Some((ip, port)) = first_address(page, "carbon.line_tcp") {
                h2 { "A value with its own timestamp, in carbon's line protocol" }
                pre { "echo \"shop.stock 40 $(date +%s)\" | nc -w1 " (ip) " " (port) }
            }
            @if let Some((ip, port)) = first_address(page, "render.http") {
                h2 { "A deploy: a vertical line on every graph" }
                pre {
                    "curl http://" (ip) ":" (port) (host.base_path()) "/events/ -d \
                     '{\"what\": \"shop 1.4.2\", \"tags\": \"deploy shop\", \"data\": \"by me\"}'"
                }
                h2 { "A graph with that line" }
                pre {
                    "curl -o graph.png 'http://" (ip) ":" (port) (host.base_path())
                    "/render?target=stats.shop.logins&from=-15min&events=deploy'"
                }
            }
        }
    };
    let layout = Layout {
        title: if waiting {
            "Waiting for data"
        } else {
            "Send data"
        },
        path: if waiting { "" } else { "start" },
        view,
        up: "",
        refresh: if waiting { 5 } else { 0 },
        head: Markup::default(),
        content,
    };
    layout.document(page)
}

/// The address and port at which this host reaches the first listener of `key`.
fn first_address(page: &Page, key: &str) -> Option<(String, String)> {
    let bound = page.0.host.addresses().get(key)?.first()?;
    let (ip, port) = bound.rsplit_once(':')?;
    let ip = match ip {
        "0.0.0.0" | "[::]" => "127.0.0.1",
        ip => ip,
    };
    Some((ip.to_owned(), port.to_owned()))
}

fn statsd_examples(ip: &str, port: &str) -> Markup {
    html! {
        h2 { "A counter, a timer and a gauge from the shell" }
        pre {
            "printf 'shop.logins:1|c\\nshop.login_time:83|ms\\nshop.carts:12|g' | nc -u -w1 "
            (ip) " " (port)
        }
        h2 { "From Python (" code { "pip install python-statsd" } ")" }
        pre {
            "import statsd\nstatsd.Connection.set_defaults(host='" (ip) "', port=" (port) ")\n\
             statsd.Counter('shop').increment('logins')\n\
             statsd.Timer('shop').send('login_time', 0.083)"
        }
    }
}

/// The answer to an unknown dashboard, or to one whose file cannot be used.
pub(super) fn missing(page: &Page, name: &str, up: &str) -> String {
    let dashboards = page.dashboards();
    let wrong = dashboards.wrong(name);
    let title = match wrong.is_empty() {
        true => "No such dashboard",
        false => "This dashboard has an error",
    };
    let content = html! {
        h1 { (title) }
        @for line in wrong { p class="problem" role="alert" { (line) } }
        @if wrong.is_empty() {
            p {
                "There is no dashboard called " code { (name) } ". A dashboard is a file NAME.toml \
                 in the directory " code { "dashboards" } " of the data directory."
            }
        } @else {
            p { "The page follows as soon as the file is corrected." }
        }
    };
    let path = format!("dashboards/{}", encode(name));
    let layout = Layout {
        title,
        path: &path,
        view: &View::default(),
        up,
        refresh: 0,
        head: Markup::default(),
        content,
    };
    layout.document(page)
}
