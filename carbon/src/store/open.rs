//! Opens a store: directories, index, journal, and the threads that serve them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::{Mutex, RwLock};
use whisper::map::{MapOptions, Maps};

use super::carbon::{Carbon, Handle};
use super::health::identity;
use super::inner::Inner;
use super::setup::{Access, Setup};
use super::{background, expire};
use crate::alarm::Alarm;
use crate::cache::Cache;
use crate::clock::Steady;
use crate::error::{Error, Result};
use crate::index::Index;
use crate::journal::Journal;
use crate::options::SyncPolicy;
use crate::persister::Persister;
use crate::private;
use crate::room::Room;
use crate::stats::Stats;
use crate::stop::Stop;

impl Carbon {
    /// Opens the store in the data directory `data`, which the caller holds the lock of.
    ///
    /// # Errors
    /// A directory or file of the store cannot be made, read or written.
    pub fn open(setup: Setup, data: &Path) -> Result<Self> {
        let Setup {
            options,
            journal: journal_options,
            schema,
            access,
            clock,
            disk,
            replaying,
            guard,
            observer,
            on_death,
            files,
        } = setup;
        if let Some(warning) = schema.warning() {
            tracing::warn!("{warning}");
        }
        let root = match options.whisper_dir.as_str() {
            "" => data.join("whisper"),
            tree => PathBuf::from(tree),
        };
        let names = data.join("index").join("names");
        if access != Access::Inspect {
            let making = |directory: &Path| {
                let directory = directory.to_owned();
                move |error| Error::io(&directory, "creating the directory", error)
            };
            std::fs::create_dir_all(&root).map_err(making(&root))?;
            let index = data.join("index");
            private::create_dir(&index).map_err(making(&index))?;
        }
        let index = Index::open_limited(&root, names, access == Access::Inspect, &options)?;
        let cache = Cache::new(usize::try_from(options.max_cache_size.0).unwrap_or(usize::MAX));
        let persister = Persister::new(
            options.max_updates_per_second,
            options.max_creates_per_minute,
        );
        let maps = Maps::new(MapOptions {
            flock: options.flock,
            reserve_up_to: crate::schema::RESERVE_UP_TO,
            ..MapOptions::default()
        });
        let journal_directory = data.join("journal");
        let journal = match (access, journal_options.sync) {
            (Access::Serve, SyncPolicy::Always | SyncPolicy::Every(_)) => {
                private::create_dir(&journal_directory).map_err(|error| {
                    Error::io(&journal_directory, "creating the directory", error)
                })?;
                let disk = Arc::clone(&disk);
                Some(Journal::open(&journal_directory, disk, &journal_options)?)
            }
            _ => None,
        };
        let inner = Arc::new(Inner {
            opened: identity(&root),
            guard,
            files,
            steady: Steady::default(),
            room: Room::default(),
            closing: AtomicBool::new(false),
            behind: Mutex::default(),
            root,
            data: data.to_owned(),
            disk,
            journal,
            gate: RwLock::default(),
            options,
            access,
            clock,
            schema,
            index,
            cache,
            maps,
            stats: Stats::default(),
            persister: Mutex::new(persister),
            observer,
            observed: Mutex::default(),
            stop: Stop::default(),
            threads: Mutex::default(),
            left_out: Mutex::default(),
            trouble: Mutex::default(),
        });
        if access == Access::Serve {
            inner.replay(&journal_directory, &*replaying)?;
        }
        let carbon = Self(Arc::clone(&inner), Arc::new(Handle(Arc::clone(&inner))));
        if access == Access::Serve {
            let spawn = |name: &str, work: fn(&Inner)| {
                let inner = Arc::clone(&inner);
                let alarm = Alarm::new(name, &on_death);
                std::thread::Builder::new()
                    .name(name.to_owned())
                    .spawn(move || {
                        let _alarm = alarm;
                        work(&inner);
                    })
                    .map_err(|error| Error::io(data, "starting a thread", error))
            };
            let mut threads = inner.threads.lock();
            threads.push(spawn("persister", background::persist)?);
            threads.push(spawn("index", background::verify)?);
            if !inner.options.expire_after.0.is_zero() {
                threads.push(spawn("expiry", expire::run)?);
            }
            if inner.journal.is_some() {
                threads.push(spawn("journal", |inner| {
                    if let Some(journal) = &inner.journal {
                        journal.run(&inner.stats);
                    }
                })?);
            }
        }
        Ok(carbon)
    }
}
