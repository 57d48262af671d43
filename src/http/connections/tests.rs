//! Deadlines, the cap and the stop, over real sockets.

use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Bytes, HttpBody};
use axum::routing::{get, post};
use hyper::body::Frame;

use super::*;

/// A server with `limits`, its address, and what stops it.
async fn served(limits: Limits) -> (Connections, std::net::SocketAddr, watch::Sender<bool>) {
    let router = Router::new()
        .route("/", get(|| async { "here" }))
        .route("/wait", get(std::future::pending::<&str>))
        .route("/echo", post(|body: Bytes| async { body }))
        .route("/broken", get(|| async { Body::new(Broken(true)) }))
        .route("/big", get(|| async { vec![7_u8; 64 << 20] }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Connections::new(limits);
    let (stop, stopped) = watch::channel(false);
    let serving = connections.clone();
    tokio::spawn(serving.serve(listener, move || router.clone(), stopped));
    (connections, address, stop)
}

/// A body that breaks off after its first piece.
struct Broken(bool);

impl HttpBody for Broken {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(Some(match std::mem::take(&mut self.0) {
            true => Ok(Frame::data("begun".into())),
            false => Err(io::Error::other("on purpose")),
        }))
    }
}

fn short() -> Limits {
    let long = Duration::from_secs(3600);
    Limits {
        connections: 8,
        header: long,
        idle: long,
        write: long,
    }
}

async fn connect(address: std::net::SocketAddr, bytes: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    stream
}

/// All that comes until the server closes.
async fn rest(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    // A reset is a close, too.
    let _ = stream.read_to_end(&mut text).await;
    String::from_utf8_lossy(&text).into_owned()
}

/// One answer, the connection left open.
async fn answer(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    while !text.ends_with("here") {
        let mut piece = [0; 4096];
        let n = stream.read(&mut piece).await.unwrap();
        assert_ne!(n, 0, "closed after {text:?}");
        text += std::str::from_utf8(&piece[..n]).unwrap();
    }
    text
}

fn reading(connections: &Connections, name: &str) -> f64 {
    let readings = connections.readings();
    let found = readings.iter().find(|reading| reading.name == name);
    found.unwrap().value
}

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[tokio::test]
async fn a_head_that_never_ends_is_not_waited_for_however_it_drips() {
    let header = Duration::from_millis(300);
    let (connections, address, _stop) = served(Limits { header, ..short() }).await;
    let silent = connect(address, "").await;
    let half = connect(address, "GET / HTTP/1.1\r\nX-").await;
    let (mut dripping, mut writing) = connect(address, "GET /").await.into_split();
    // The pace itself is tested: each byte comes long before the timeout, the whole head never.
    let drip = tokio::spawn(async move {
        while writing.write_all(b"a").await.is_ok() {
            sleep(Duration::from_millis(20)).await;
        }
    });
    assert_eq!(rest(silent).await, "");
    assert_eq!(rest(half).await, "");
    let mut text = String::new();
    let _ = dripping.read_to_string(&mut text).await;
    drip.await.unwrap();
    assert_eq!(reading(&connections, "header_timeouts"), 3.0);
    // After an answer the next head has as long from its first byte.
    let mut kept = connect(address, GET).await;
    answer(&mut kept).await;
    kept.write_all(b"GET / HT").await.unwrap();
    assert_eq!(rest(kept).await, "");
    assert_eq!(reading(&connections, "header_timeouts"), 4.0);
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let idle = Duration::from_millis(100);
    let (connections, address, _stop) = served(Limits { idle, ..short() }).await;
    let busy = connect(address, "GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut kept = connect(address, GET).await;
    answer(&mut kept).await;
    assert_eq!(rest(kept).await, "");
    assert_eq!(reading(&connections, "idle_timeouts"), 1.0);
    let gone = timeout(idle * 5, rest(busy)).await;
    assert!(gone.is_err(), "a long answer does not count as idle");
}

#[tokio::test]
async fn an_answer_that_is_not_read_ends_the_connection_and_a_slow_reader_gets_it() {
    let write = Duration::from_millis(500);
    let (connections, address, _stop) = served(Limits { write, ..short() }).await;
    let ask = "GET /big HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let unread = connect(address, ask).await;
    let mut slow = connect(address, ask).await;
    let began = Instant::now();
    let mut n_bytes = 0;
    let mut piece = vec![0; 1 << 20];
    loop {
        let n = slow.read(&mut piece).await.unwrap();
        if n == 0 {
            break;
        }
        n_bytes += n;
        // The pace itself is tested: the whole takes longer than the timeout, each piece does not.
        let due = write * 2 * (n_bytes >> 20) as u32 / 64;
        sleep(due.saturating_sub(began.elapsed())).await;
    }
    assert!(n_bytes > 64 << 20, "{n_bytes}");
    assert!(began.elapsed() > write);
    while reading(&connections, "write_timeouts") == 0.0 {
        tokio::task::yield_now().await;
    }
    assert!(rest(unread).await.len() < 64 << 20);
    assert_eq!(reading(&connections, "write_timeouts"), 1.0);
}

/// Whether the connection ends with a reset after `request`.
async fn is_reset(address: std::net::SocketAddr, request: &str) -> bool {
    let mut stream = connect(address, request).await;
    match stream.read_to_end(&mut Vec::new()).await {
        Ok(_) => false,
        Err(why) => {
            assert_eq!(why.kind(), io::ErrorKind::ConnectionReset, "{why}");
            true
        }
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_does_not_look_whole() {
    let write = Duration::from_millis(200);
    let (connections, address, stop) = served(Limits { write, ..short() }).await;
    for version in ["1.0", "1.1"] {
        let end = format!("HTTP/{version}\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        assert!(is_reset(address, &format!("GET /broken {end}")).await);
        // Whole answers end as they always do.
        for whole in ["GET /", "HEAD /", "HEAD /broken", "GET /nothing"] {
            let request = format!("{whole} {end}");
            assert!(!is_reset(address, &request).await, "{request}");
        }
    }
    let unread = connect(address, "GET /big HTTP/1.0\r\n\r\n").await;
    while reading(&connections, "connections") > 0.0 || reading(&connections, "accepted") < 11.0 {
        sleep(Duration::from_millis(1)).await;
    }
    let mut unread = unread;
    let ended = unread.read_to_end(&mut Vec::new()).await;
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    drop(stop);
}

#[tokio::test]
async fn a_body_that_does_not_come_ends_the_request() {
    let write = Duration::from_millis(100);
    let (connections, address, _stop) = served(Limits { write, ..short() }).await;
    let head = "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n";
    let half = connect(address, &format!("{head}ab")).await;
    let text = rest(half).await;
    assert!(text.starts_with("HTTP/1.1 400"), "{text}");
    assert_eq!(reading(&connections, "body_timeouts"), 1.0);
    let mut whole = connect(address, &format!("{head}abc")).await;
    whole.write_all(b"de").await.unwrap();
    whole.shutdown().await.unwrap();
    assert!(rest(whole).await.ends_with("abcde"));
}

#[tokio::test]
async fn at_the_cap_the_idle_make_room_then_the_unfinished_and_never_the_busy() {
    let (connections, address, _stop) = served(short()).await;
    let wait = "GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut busy = Vec::new();
    for _ in 0..6 {
        busy.push(connect(address, wait).await);
    }
    let half = connect(address, "GET /").await;
    let mut idle = connect(address, GET).await;
    answer(&mut idle).await;
    assert_eq!(reading(&connections, "connections"), 8.0);

    busy.push(connect(address, wait).await);
    assert_eq!(rest(idle).await, "");
    busy.push(connect(address, wait).await);
    assert_eq!(rest(half).await, "");
    assert_eq!(reading(&connections, "connections_displaced"), 2.0);

    let refused = rest(connect(address, GET).await).await;
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert!(refused.contains("retry-after: 1\r\n"), "{refused}");
    assert!(refused.contains("render.max_connections"), "{refused}");
    assert_eq!(reading(&connections, "connections_refused"), 1.0);
    assert_eq!(reading(&connections, "connections"), 8.0);
    drop(busy);
    let mut again = connect(address, GET).await;
    // Those that left are noticed in their own time.
    while reading(&connections, "connections") > 1.0 {
        tokio::task::yield_now().await;
    }
    let text = answer(&mut again).await;
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
}

#[tokio::test]
async fn a_stop_closes_what_is_idle_and_lets_answers_finish() {
    let (connections, address, stop) = served(short()).await;
    let mut idle = connect(address, GET).await;
    answer(&mut idle).await;
    let half = connect(address, "GET /").await;
    let ask = "GET /big HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let reader = connect(address, ask).await;
    while reading(&connections, "connections") < 3.0 {
        tokio::task::yield_now().await;
    }
    // The answer has begun.
    reader.readable().await.unwrap();
    stop.send(true).unwrap();
    assert_eq!(rest(idle).await, "");
    assert_eq!(rest(half).await, "");
    assert!(rest(reader).await.len() > 64 << 20);
    assert!(TcpStream::connect(address).await.is_err());
    assert_eq!(reading(&connections, "connections"), 0.0);
}
