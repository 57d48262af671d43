//! Taking a datapoint never waits for the disk. Receivers that wait for room or for a commit, threads and
//! tasks alike, are woken when there is one.

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

mod support;

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use carbon::journal::disk::{Disk, RealDisk, Segment};
use carbon::listener::Listeners;
use carbon::options::{JournalOptions, SyncPolicy};
use carbon::{Carbon, Setup, Sink};
use support::{FullCache, point, series, setup, values};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// The operations of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Create,
    Append,
    Sync,
    SyncTree,
}

/// A disk that holds one kind of operation up.
#[derive(Clone, Debug, Default)]
struct SlowDisk(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    held: Option<Operation>,
    /// An operation is being held up.
    reached: bool,
}

#[derive(Debug)]
struct SlowSegment(SlowDisk, Box<dyn Segment>);

impl SlowDisk {
    /// Holds `held` up from now on, and nothing else.
    fn hold(&self, held: Option<Operation>) {
        let mut state = self.0.0.lock().unwrap();
        state.held = held;
        state.reached = false;
        self.0.1.notify_all();
    }

    /// Waits until an operation is held up.
    fn wait_reached(&self) {
        let state = self.0.0.lock().unwrap();
        let reached = self.0.1.wait_while(state, |state| !state.reached);
        drop(reached.unwrap());
    }

    fn pass(&self, operation: Operation) {
        let mut state = self.0.0.lock().unwrap();
        while state.held == Some(operation) {
            state.reached = true;
            self.0.1.notify_all();
            state = self.0.1.wait(state).unwrap();
        }
    }
}

impl Disk for SlowDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn Segment>> {
        self.pass(Operation::Create);
        Ok(Box::new(SlowSegment(self.clone(), RealDisk.create(path)?)))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn sync_tree(&self, root: &Path) -> io::Result<()> {
        self.pass(Operation::SyncTree);
        RealDisk.sync_tree(root)
    }
}

impl Segment for SlowSegment {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.pass(Operation::Append);
        self.1.append(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.pass(Operation::Sync);
        self.1.sync()
    }
}

/// Takes a point of a new series and one of a known series on a thread of its own, because a failure would
/// block this one.
#[track_caller]
fn takes_points(carbon: &Carbon, n: u32) {
    let (done, finished) = channel();
    let carbon = carbon.clone();
    std::thread::spawn(move || {
        let new = carbon
            .intern(format!("test.new{n};a=b").as_bytes())
            .unwrap();
        let known = carbon.intern(b"test.m0").unwrap();
        let taken = carbon.try_submit(&[point(new, n), point(known, n)]);
        done.send(taken).unwrap();
    });
    let taken = finished.recv_timeout(Duration::from_secs(60));
    assert_eq!(taken, Ok(2), "point {n}");
}

#[test]
fn points_are_taken_during_each_operation_of_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SlowDisk::default();
    let carbon = Carbon::open(setup(Arc::new(disk.clone())), dir.path()).unwrap();
    let ids = series(&carbon, 2);
    carbon.submit(&[point(ids[0], 1), point(ids[1], 1)]);
    // Points that arrive while a step is held up are pending at the next one: the next segment is created,
    // the rest is appended to the old one and synced, and then the files are.
    let steps = [
        Operation::Create,
        Operation::Append,
        Operation::Sync,
        Operation::SyncTree,
    ];
    carbon.commit().unwrap();
    disk.hold(Some(steps[0]));
    let checkpoint = {
        let carbon = carbon.clone();
        std::thread::spawn(move || carbon.checkpoint())
    };
    for (n, next) in (2..).zip(steps[1..].iter().map(Some).chain([None])) {
        disk.wait_reached();
        takes_points(&carbon, n);
        disk.hold(next.copied());
    }
    checkpoint.join().unwrap().unwrap();
    // All that was taken during the checkpoint survives a crash after the next commit.
    carbon.commit().unwrap();
    carbon.abandon();
    let carbon = Carbon::open(setup(Arc::new(RealDisk)), dir.path()).unwrap();
    assert_eq!(values(&carbon, "test.m0").len(), 5);
    assert_eq!(values(&carbon, "test.m1").len(), 1);
    for n in 2..6 {
        assert_eq!(values(&carbon, &format!("test.new{n};a=b")).len(), 1);
    }
}

#[test]
fn a_task_waits_for_room_and_is_woken() {
    let full = FullCache::new();
    let FullCache { carbon, points, .. } = &full;
    let mut waiting = pin!(carbon.submit_async(&points[100..]));
    let polled = waiting
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()));
    assert_eq!((polled, carbon.stats().waits.get()), (Poll::Pending, 1));
    full.make_room();
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(waiting);
    carbon.drain(|_| {}).unwrap();
    assert_eq!(carbon.stats().committed.get(), 200);
    assert_eq!(values(carbon, "test.m199").len(), 1);
}

#[tokio::test]
async fn what_a_connection_has_sent_is_in_the_journal_when_the_cache_stays_full() {
    let full = FullCache::new();
    let carbon = &full.carbon;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(Listeners::new(carbon).line_tcp(listener, async {
        let _ = stopped.await;
    }));
    let line = |n: u32| format!("test.m{n} 1 {}\n", support::NOW - 10);
    let lines: String = (100..200).map(line).collect();
    client.write_all(lines.as_bytes()).await.unwrap();
    while carbon.stats().waits.get() == 0 {
        tokio::task::yield_now().await;
    }
    carbon.shut_down();
    stop.send(()).unwrap();
    server.await.unwrap();
    full.make_room();
    carbon.drain(|_| {}).unwrap();
    let carbon = support::reopen(full.dir.path());
    for n in 0..200 {
        assert_eq!(values(&carbon, &format!("test.m{n}")).len(), 1, "m{n}");
    }
}

#[test]
fn a_task_waits_for_the_commit_of_its_points() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SlowDisk::default();
    let setup = Setup {
        journal: JournalOptions {
            sync: SyncPolicy::Always,
            ..JournalOptions::default()
        },
        ..setup(Arc::new(disk.clone()))
    };
    let carbon = Carbon::open(setup, dir.path()).unwrap();
    let ids = series(&carbon, 10);
    let points: Vec<_> = ids.iter().map(|id| point(*id, 1)).collect();
    disk.hold(Some(Operation::Sync));
    let mut waiting = pin!(carbon.submit_async(&points));
    let polled = waiting
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()));
    assert_eq!((polled, carbon.committed()), (Poll::Pending, 0));
    disk.hold(None);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(waiting);
    assert_eq!(carbon.committed(), 10);
}
