//! A shutdown waits for nothing without a bound, and the journal has what was not written.

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

mod support;

use std::net::UdpSocket;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use carbon::journal::disk::RealDisk;
use carbon::listener::Listeners;
use carbon::options::{ByteSize, Options, Span, SyncPolicy};
use carbon::{Carbon, Setup, Sink};
use support::{point, reopen, series, setup, values};

#[test]
fn a_shutdown_is_not_held_up_by_a_full_cache_and_the_journal_has_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let full = Setup {
        options: Options {
            max_cache_size: ByteSize(32 * 100),
            max_creates_per_minute: 1,
            ..support::options()
        },
        ..setup(Arc::new(RealDisk))
    };
    let carbon = Carbon::open(full, dir.path()).unwrap();
    let ids = series(&carbon, 500);
    let begun = std::time::Instant::now();
    let sender = {
        let carbon = carbon.clone();
        std::thread::spawn(move || {
            for ids in ids.chunks(50) {
                carbon.submit(&ids.iter().map(|id| point(*id, 1)).collect::<Vec<_>>());
            }
        })
    };
    while carbon.stats().waits.get() == 0 {
        std::thread::yield_now();
    }
    carbon.shut_down();
    sender.join().unwrap();
    carbon.drain(|_| {}).unwrap();
    assert!(begun.elapsed().as_secs() < 30, "{:?}", begun.elapsed());
    drop(carbon);
    let carbon = reopen(dir.path());
    for n in 0..500 {
        assert_eq!(values(&carbon, &format!("test.m{n}")).len(), 1, "m{n}");
    }
    assert!(carbon.stats().journal_replayed.get() >= 400);
}

/// A store that creates no file by itself but the first, and has 100 points when it is shut down.
fn shut_down_late(dir: &Path, drain_timeout: Span, sync: SyncPolicy) -> Carbon {
    let mut setup = setup(Arc::new(RealDisk));
    setup.options.max_creates_per_minute = 1;
    setup.options.drain_timeout = drain_timeout;
    setup.journal.sync = sync;
    let carbon = Carbon::open(setup, dir).unwrap();
    let ids = series(&carbon, 100);
    carbon.submit(&ids.iter().map(|id| point(*id, 1)).collect::<Vec<_>>());
    carbon.shut_down();
    let begun = std::time::Instant::now();
    while begun.elapsed() <= Duration::from_millis(1) {
        std::thread::yield_now();
    }
    carbon.drain(|_| {}).unwrap();
    carbon
}

#[test]
fn a_shutdown_ends_after_its_timeout_and_the_journal_has_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let hourly = SyncPolicy::Every(Span::seconds(3_600));
    let carbon = shut_down_late(dir.path(), Span::millis(1), hourly);
    assert!(carbon.stats().creates.get() <= 1);
    assert_eq!(carbon.committed(), 100);
    drop(carbon);
    let carbon = reopen(dir.path());
    assert_eq!(carbon.stats().journal_replayed.get(), 100);
    for n in 0..100 {
        assert_eq!(values(&carbon, &format!("test.m{n}")).len(), 1, "m{n}");
    }
    carbon.abandon();

    // Without a limit, and without a journal that could keep them, all of them are written.
    for (limit, sync) in [
        (Span::seconds(0), hourly),
        (Span::millis(1), SyncPolicy::Off),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let carbon = shut_down_late(dir.path(), limit, sync);
        assert_eq!(carbon.stats().creates.get(), 100, "{limit} {sync}");
        drop(carbon);
        let carbon = reopen(dir.path());
        assert_eq!(carbon.stats().journal_replayed.get(), 0);
        assert_eq!(values(&carbon, "test.m99").len(), 1);
    }
}

#[test]
fn senders_of_datagrams_that_never_pause_hold_up_no_shutdown() {
    let dir = tempfile::tempdir().unwrap();
    let carbon = reopen(dir.path());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(tokio::net::UdpSocket::bind("127.0.0.1:0"));
    let listener = listener.unwrap();
    let address = listener.local_addr().unwrap();
    let ended = Arc::new(AtomicBool::new(false));
    // Several, so that there is hardly a pause when one of them does not run.
    let senders = [(); 4].map(|()| {
        let ended = Arc::clone(&ended);
        std::thread::spawn(move || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            while !ended.load(Ordering::Relaxed) {
                // Refused once the listener has ended.
                let _ = socket.send_to(b"test.m0 1 -1\n", address);
            }
        })
    });
    let shutdown = {
        let carbon = carbon.clone();
        async move {
            while carbon.stats().received.get() == 0 {
                tokio::task::yield_now().await;
            }
        }
    };
    // A task of its own: while datagrams are there, it does not let others run.
    let run = runtime.spawn(Listeners::new(&carbon).line_udp(listener, shutdown));
    let outcome =
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(10), run).await });
    ended.store(true, Ordering::Relaxed);
    for sender in senders {
        sender.join().unwrap();
    }
    assert!(outcome.is_ok(), "the listener goes on after 10 s");
}
