//! The relay while the server runs: where the points of each series go, and the destinations.
//!
//! 1. A series is judged once, by its name; afterwards its id is an index into a table. The store forgets
//!    ids before it gives them to other names.
//! 2. Points that a receiver hands on are written as lines once, outside of all locks but that of the
//!    names, and appended to the buffer of each destination.
//! 3. Nothing here waits for a disk or a destination.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use settings::Reading;

use super::destination::{Destination, Worker};
use super::member::Member;
use super::options::{Plan, Ready};
use super::route::Keep;
use super::rules::{RelayRules, destinations_of};
use super::wire::{self, Protocol};
use crate::alarm::{Alarm, OnDeath};
use crate::datapoint::{Datapoint, SeriesId};
use crate::error::{Error, Result};
use crate::index::Index;
use crate::options::Options;
use crate::rules::Faults;
use crate::stats::Stats;

/// Where the points of some series go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Way {
    /// Destinations, each once.
    to: Vec<u16>,
    /// Routes that choose among destinations that are there: the route, and the order of preference.
    among: Vec<(u16, Vec<u16>)>,
    /// Whether they are stored here.
    keep: bool,
}

/// A route with the numbers of its destinations; `None` is this server.
struct Routed {
    ready: Ready,
    numbers: Vec<Option<u16>>,
}

/// The ways of series by their ids: 0 is unknown, the others are indexes into `ways`, plus one.
#[derive(Default)]
struct Table {
    by_series: Vec<u32>,
    ways: Vec<Arc<Way>>,
    numbers: HashMap<Arc<Way>, u32>,
}

/// Routes and destinations of a store.
pub(crate) struct Relay {
    routes: Vec<Routed>,
    rules: Option<(RelayRules, HashMap<Member, u16>, bool)>,
    destinations: Vec<Arc<Destination>>,
    table: RwLock<Table>,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
    patience: Duration,
}

thread_local! {
    /// Lines by destination, and how many.
    static LINES: RefCell<Vec<(Vec<u8>, u32)>> = const { RefCell::new(Vec::new()) };
}

impl Relay {
    /// The relay that `options` describe; `None` if they have no route.
    ///
    /// # Errors
    /// A route cannot be used.
    pub(crate) fn open(options: &Options) -> Result<Option<Self>> {
        let Plan { routes, rules, own } = Plan::read(options).map_err(|problems| {
            let lines: Vec<String> = problems
                .iter()
                .map(|problem| format!("carbon.{}: {}", problem.path.key(), problem.message))
                .collect();
            Error::Relay(lines.join("; "))
        })?;
        if routes.is_empty() && rules.is_none() {
            return Ok(None);
        }
        let mut destinations = Vec::new();
        let routes = routes.into_iter().map(|ready| {
            let number = |member: &Member| {
                let is_own = own.as_ref() == Some(member);
                (!is_own).then(|| number_of(&mut destinations, member, ready.protocol))
            };
            Routed {
                numbers: ready.members.iter().map(number).collect(),
                ready,
            }
        });
        let routes: Vec<Routed> = routes.collect();
        let rules = rules.map(|rules| {
            let mut numbers = HashMap::new();
            for member in rules.iter().flat_map(|rule| &rule.destinations) {
                let number = number_of(&mut destinations, member, options.relay_protocol);
                numbers.insert(member.clone(), number);
            }
            (rules, numbers, options.relay_keep)
        });
        Ok(Some(Self {
            routes,
            rules,
            destinations,
            table: RwLock::default(),
            threads: Mutex::default(),
            patience: options.relay_stop_timeout.0,
        }))
    }

    /// Opens the queues below `data` and begins to connect.
    ///
    /// # Errors
    /// A queue or a thread cannot be made.
    pub(crate) fn start(&self, data: &Path, options: &Options, on_death: &OnDeath) -> Result<()> {
        let directory = data.join("relay");
        let creating = |error| Error::io(&directory, "creating the directory", error);
        crate::private::create_dir(&directory).map_err(creating)?;
        let max = options.relay_queue_size.0;
        for destination in &self.destinations {
            let destination = Arc::clone(destination);
            let name = format!("relay {}", destination.member);
            let alarm = Alarm::new(name, on_death);
            let directory = directory.clone();
            let (opened, opening) = std::sync::mpsc::channel();
            let work = move || {
                let _alarm = alarm;
                match Worker::open(&destination, &directory, max) {
                    Ok(worker) => {
                        let _ = opened.send(Ok(()));
                        worker.run();
                    }
                    Err((path, error)) => {
                        let _ = opened.send(Err(Error::io(&path, "opening the queue", error)));
                    }
                }
            };
            let thread = std::thread::Builder::new()
                .name("relay".to_owned())
                .spawn(work)
                .map_err(|error| Error::io(data, "starting a thread", error))?;
            self.threads.lock().push(thread);
            opening.recv().unwrap_or(Ok(()))?;
        }
        Ok(())
    }

    /// Begins the end: destinations that are there get what waits for them, for a bounded time.
    pub(crate) fn stop(&self) {
        let deadline = Instant::now() + self.patience;
        for destination in &self.destinations {
            destination.stop(deadline);
        }
    }

    /// Waits for the end of the workers.
    pub(crate) fn join(&self) {
        for thread in std::mem::take(&mut *self.threads.lock()) {
            if thread.join().is_err() {
                tracing::error!("a thread of the relay had ended before");
            }
        }
    }

    /// Counters and levels of all destinations.
    pub(crate) fn readings(&self) -> Vec<Reading> {
        self.destinations
            .iter()
            .flat_map(|destination| destination.readings())
            .collect()
    }

    /// What is wrong with destinations at present, a sentence each.
    pub(crate) fn trouble(&self) -> Vec<String> {
        let all = self.destinations.iter();
        all.filter_map(|destination| destination.trouble())
            .collect()
    }

    /// Forgets ids that are going to be given to other names.
    pub(crate) fn forget(&self, ids: &[SeriesId]) {
        let mut table = self.table.write();
        for id in ids {
            if let Some(way) = table.by_series.get_mut(id.0 as usize) {
                *way = 0;
            }
        }
    }

    /// Where each of `points` goes.
    pub(crate) fn ways(&self, index: &Index, stats: &Stats, points: &[Datapoint]) -> Ways {
        let mut ways = Vec::with_capacity(points.len());
        let mut keeps = 0;
        let mut table = self.table.read();
        for point in points {
            let id = point.series.0 as usize;
            let mut way = table.by_series.get(id).copied().unwrap_or(0);
            if way == 0 {
                drop(table);
                way = self.learn(index, stats, point.series);
                table = self.table.read();
            }
            keeps += usize::from(table.ways[way as usize - 1].keep);
            ways.push(way);
        }
        Ways { ways, keeps }
    }

    /// Whether the points of the way `way` are stored here.
    pub(crate) fn keeps(&self, ways: &Ways) -> Vec<bool> {
        let table = self.table.read();
        let keep = |way: &u32| table.ways[*way as usize - 1].keep;
        ways.ways.iter().map(keep).collect()
    }

    #[cold]
    fn learn(&self, index: &Index, stats: &Stats, series: SeriesId) -> u32 {
        let way = Arc::new(self.judge(index.names().name(series), stats));
        let mut table = self.table.write();
        let number = match table.numbers.get(&way) {
            Some(number) => *number,
            None => {
                table.ways.push(Arc::clone(&way));
                let number = table.ways.len() as u32;
                table.numbers.insert(way, number);
                number
            }
        };
        let id = series.0 as usize;
        if table.by_series.len() <= id {
            table.by_series.resize((id + 1).next_multiple_of(1_024), 0);
        }
        table.by_series[id] = number;
        number
    }

    /// Where the points of `name` go.
    fn judge(&self, name: &str, stats: &Stats) -> Way {
        let mut faults = Faults::default();
        let mut way = Way::default();
        let mut goes_on = true;
        for (n, Routed { ready, numbers }) in self.routes.iter().enumerate() {
            if !ready.matches(name, &mut faults) {
                continue;
            }
            let method = ready.placement.method();
            let key = method.key(name);
            way.keep |= ready.keep == Keep::Always;
            if method.is_dynamic() {
                let order = ready
                    .placement
                    .order(key)
                    .filter_map(|member| numbers[member]);
                way.among.push((n as u16, order.collect()));
            } else {
                for member in ready.placement.place(key) {
                    match numbers[member] {
                        Some(number) if !way.to.contains(&number) => way.to.push(number),
                        Some(_) => {}
                        None => way.keep = true,
                    }
                }
            }
            if !ready.goes_on {
                goes_on = false;
                break;
            }
        }
        match &self.rules {
            Some((rules, numbers, keep)) if goes_on => {
                for member in destinations_of(rules, name, &mut faults) {
                    way.to.extend(
                        numbers
                            .get(member)
                            .filter(|number| !way.to.contains(number)),
                    );
                }
                way.keep |= *keep;
            }
            // No route has taken them for good.
            _ => way.keep |= goes_on,
        }
        stats.rules_skipped.add(faults.count);
        way
    }

    /// Hands on `points`, which go `ways`.
    pub(crate) fn send(&self, index: &Index, points: &[Datapoint], ways: &Ways) {
        LINES.with_borrow_mut(|lines| {
            if lines.len() < self.destinations.len() {
                lines.resize_with(self.destinations.len(), Default::default);
            }
            self.write(index, points, ways, lines);
            for (destination, (lines, points)) in self.destinations.iter().zip(lines) {
                if *points > 0 {
                    destination.push(lines, *points);
                    lines.clear();
                    *points = 0;
                }
            }
        });
    }

    fn write(
        &self,
        index: &Index,
        points: &[Datapoint],
        ways: &Ways,
        lines: &mut [(Vec<u8>, u32)],
    ) {
        let mut line = Vec::new();
        let table = self.table.read();
        let names = index.names();
        for (point, way) in points.iter().zip(&ways.ways) {
            let way = &*table.ways[*way as usize - 1];
            let name = names.name(point.series);
            let nowhere = way.to.is_empty() && way.among.is_empty();
            if nowhere || !point.value.is_finite() || name.is_empty() {
                continue;
            }
            line.clear();
            wire::line(&mut line, name, point.value, point.at.timestamp().0);
            let mut add = |to: u16| {
                let (lines, points) = &mut lines[to as usize];
                lines.extend_from_slice(&line);
                *points += 1;
            };
            for to in &way.to {
                add(*to);
            }
            for (_, order) in &way.among {
                let up = order
                    .iter()
                    .find(|to| self.destinations[**to as usize].is_up());
                // All are away: the first one's queue keeps it.
                if let Some(to) = up.or(order.first())
                    && !way.to.contains(to)
                {
                    add(*to);
                }
            }
        }
    }
}

/// The ways of a batch of points.
pub(crate) struct Ways {
    ways: Vec<u32>,
    /// How many of the points are stored here.
    keeps: usize,
}

impl Ways {
    /// Whether all points are stored here.
    pub(crate) fn keep_all(&self) -> bool {
        self.keeps == self.ways.len()
    }
}

impl Ready {
    fn matches(&self, name: &str, faults: &mut Faults) -> bool {
        let Some(patterns) = &self.patterns else {
            return true;
        };
        let mut matches =
            |pattern: &crate::pattern::Pattern| faults.note(pattern.is_in(name)).unwrap_or(false);
        patterns.iter().any(&mut matches)
    }
}

fn number_of(all: &mut Vec<Arc<Destination>>, member: &Member, protocol: Protocol) -> u16 {
    let known = all.iter().position(|other| other.is(member, protocol));
    let number = known.unwrap_or_else(|| {
        all.push(Arc::new(Destination::new(member.clone(), protocol)));
        all.len() - 1
    });
    number as u16
}
