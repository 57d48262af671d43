//! Opens a store: directories, index, journal, and the threads that serve them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};
use whisper::map::{MapOptions, Maps};

use super::carbon::{Carbon, Handle, Origin};
use super::deliver;
use super::deliveries::Deliveries;
use super::inner::Inner;
use super::setup::{Access, Setup};
use super::{background, expire, rounds, ruled};
use crate::alarm::{Alarm, OnDeath};
use crate::cache::Cache;
use crate::clock::Steady;
use crate::error::{Error, Result};
use crate::index::Index;
use crate::journal::Journal;
use crate::journal::disk::Disk;
use crate::options::{JournalOptions, Options, SyncPolicy};
use crate::persister::Persister;
use crate::private;
use crate::relay::live::Relay;
use crate::signal::Signal;
use crate::stats::Stats;
use crate::stop::Stop;
use crate::watch;

impl Carbon {
    /// Opens the store in the data directory `data`, which the caller has locked.
    ///
    /// # Errors
    /// A directory or file of the store cannot be created, read or written.
    pub fn open(setup: Setup, data: &Path) -> Result<Self> {
        if let Some(warning) = setup.schema.warning() {
            tracing::warn!("{warning}");
        }
        let replaying = Arc::clone(&setup.replaying);
        let on_death = Arc::clone(&setup.on_death);
        let inner = Arc::new(assemble(setup, data)?);
        if inner.access == Access::Serve {
            if let Some(remote) = &inner.remote {
                remote.read_back(inner.journal.as_ref());
            } else {
                // Points of the journal go into the files before any new point is taken.
                inner.replay(&data.join("journal"), &*replaying)?;
            }
            inner.restore_aggregates()?;
        }
        // From here on, dropping the store ends its threads.
        let carbon = Self(
            Arc::clone(&inner),
            Arc::new(Handle(Arc::clone(&inner))),
            Origin::Anyone,
        );
        if inner.access == Access::Serve {
            spawn_threads(&inner, &on_death)?;
            if let Some(relay) = &inner.relay {
                relay.start(data, &inner.options, &on_death)?;
            }
        }
        Ok(carbon)
    }
}

/// Creates the directories, and opens index and journal.
fn assemble(setup: Setup, data: &Path) -> Result<Inner> {
    let Setup {
        options,
        journal,
        schema,
        access,
        clock,
        disk,
        replaying: _,
        guard,
        observer,
        on_death: _,
        mut files,
        delivery,
    } = setup;
    let schema = schema
        .configured(&options, &mut files)
        .map_err(Error::Rules)?;
    let (rules, relay) = match access {
        Access::Serve => (
            ruled::open(&options, &mut files).map_err(Error::Rules)?,
            Relay::open(&options)?,
        ),
        Access::Frozen | Access::Inspect => (None, None),
    };
    let root = tree(&options, data);
    let index = open_index(&root, data, access, &options)?;
    // Only a serving store has a journal; it wakes the persister when it pauses.
    let work = Arc::new(Signal::default());
    let journal = match (access, journal.sync) {
        (Access::Serve, SyncPolicy::Always | SyncPolicy::Every(_)) => {
            Some(open_journal(data, &disk, &journal, &work)?)
        }
        _ => None,
    };
    Ok(Inner {
        opened: File::open(&root).ok(),
        cache: Cache::new(usize::try_from(options.max_cache_size.0).unwrap_or(usize::MAX)),
        maps: Maps::new(MapOptions {
            flock: options.flock,
            reserve_up_to: crate::schema::RESERVE_UP_TO,
            ..MapOptions::default()
        }),
        persister: Mutex::new(Persister::new(
            options.max_updates_per_second,
            options.max_creates_per_minute,
        )),
        root,
        data: data.to_owned(),
        guard,
        files,
        disk,
        journal,
        gate: RwLock::default(),
        options,
        access,
        clock,
        steady: Steady::default(),
        room: Signal::default(),
        work,
        closing: OnceLock::new(),
        behind: Mutex::default(),
        schema,
        rules: rules.map(Arc::new),
        relay,
        index,
        stats: Stats::default(),
        observer,
        observed: Mutex::default(),
        undecided: AtomicUsize::new(0),
        readers: AtomicUsize::new(0),
        stop: Stop::default(),
        threads: Mutex::default(),
        left_out: Mutex::default(),
        trouble: Mutex::default(),
        remote: delivery.map(Deliveries::new),
    })
}

/// The directory of the whisper files.
fn tree(options: &Options, data: &Path) -> PathBuf {
    match options.whisper_dir.as_str() {
        "" => data.join("whisper"),
        // Without a slash at its end, as paths below it are compared.
        tree => Path::new(tree).components().collect(),
    }
}

/// The index of the tree `root`, kept in the data directory.
fn open_index(root: &Path, data: &Path, access: Access, options: &Options) -> Result<Index> {
    // An inspected data directory may belong to a running server: create nothing there.
    let directory = data.join("index");
    if access != Access::Inspect {
        std::fs::create_dir_all(root).map_err(creating(root))?;
        private::create_dir(&directory).map_err(creating(&directory))?;
    }
    let names = directory.join("names");
    let index = Index::open_limited(root, names, access == Access::Inspect, options)?;
    Ok(match access {
        Access::Serve => index,
        Access::Frozen | Access::Inspect => index.receives_nothing(),
    })
}

fn open_journal(
    data: &Path,
    disk: &Arc<dyn Disk>,
    options: &JournalOptions,
    work: &Arc<Signal>,
) -> Result<Journal> {
    let directory = data.join("journal");
    private::create_dir(&directory).map_err(creating(&directory))?;
    Journal::open(&directory, Arc::clone(disk), options, Arc::clone(work))
}

fn creating(directory: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let directory = directory.to_owned();
    move |error| Error::io(&directory, "creating the directory", error)
}

/// The persister's thread.
fn persist(inner: &Inner) {
    match inner.may_wait() {
        Some(within) => rounds::persist(inner, within),
        None => background::persist(inner),
    }
}

fn spawn_threads(inner: &Arc<Inner>, on_death: &OnDeath) -> Result<()> {
    let spawn = |name: &str, work: fn(&Inner)| {
        let shared = Arc::clone(inner);
        let alarm = Alarm::new(name, on_death);
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let _alarm = alarm;
                work(&shared);
            })
            .map_err(|error| Error::io(&inner.data, "starting a thread", error))
    };
    let mut threads = inner.threads.lock();
    if inner.remote.is_some() {
        threads.push(spawn("delivery", deliver::run)?);
    } else {
        threads.push(spawn("persister", persist)?);
        threads.push(spawn("index", background::verify)?);
        threads.push(spawn("files", watch::run)?);
    }
    if inner.rules.is_some() {
        threads.push(spawn("rules", ruled::run)?);
    }
    if !inner.options.expire_after.0.is_zero() && inner.remote.is_none() {
        threads.push(spawn("expiry", expire::run)?);
    }
    if inner.journal.is_some() {
        threads.push(spawn("journal", background::commit)?);
    }
    Ok(())
}
