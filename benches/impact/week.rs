//! The demo's own week, judged in memory as the server judges it.

use std::ops::Range;
use std::sync::Arc;

use plumbago::demo::history::series;
use plumbago::demo::rules;
use plumbago::demo::shop::{Change, Kind, Shop};
use render::budget::Budget;
use render::events::Event;
use render::impact::{
    Input, LOOKS, Outcome, Params, Question, Report, Role, Subject, Values, judge_looks, report,
};
use render::memory::Memory;
use render::verdicts::scope::{Chosen, Names, Rules, Selector};

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// The seconds between flushes.
const FLUSH: i64 = 10;

/// A week of the shop, and an hour more.
pub(crate) struct Week {
    shop: Shop,
    chosen: Vec<Chosen>,
    columns: Vec<Vec<f64>>,
    /// The time of the first point.
    base: i64,
    step: i64,
}

impl Values for Week {
    fn read(&self, series: usize, points: Range<usize>, values: &mut Vec<f64>) {
        values.extend(&self.columns[series][points]);
    }
}

impl Week {
    /// The week before the first start at `opened`, in steps of `step` seconds.
    pub(crate) fn new(opened: i64, step: i64) -> Self {
        let shop = Shop {
            opened,
            broken: false,
        };
        let base = (opened - 7 * DAY - HOUR) / step * step;
        let chosen = chosen();
        let all = series();
        let column = |chosen: &Chosen| {
            let filled = all.iter().find(|filled| filled.name == chosen.name);
            // As far as the first harmful deploy after the start.
            let times = (base..opened + HOUR).step_by(step as usize);
            let value = |at| filled.map_or(f64::NAN, |one| one.value(shop, at, step, FLUSH));
            times.map(value).collect()
        };
        Self {
            columns: chosen.iter().map(column).collect(),
            shop,
            chosen,
            base,
            step,
        }
    }

    /// The planned deploys, oldest first.
    pub(crate) fn deploys(&self) -> Vec<Change> {
        let mut changes = self.shop.changes(self.base, self.shop.opened);
        changes.retain(|change| change.kind != Kind::Setting);
        changes
    }

    /// Times in the last `days` at which nothing was deployed for more than an hour before and after, `every` so
    /// many seconds.
    pub(crate) fn quiet(&self, days: i64, every: i64) -> Vec<i64> {
        const APART: i64 = 75 * MINUTE;
        let opened = self.shop.opened;
        let deploys = self.deploys();
        let is_quiet = |at: &i64| deploys.iter().all(|deploy| (deploy.at - at).abs() > APART);
        (1..days * DAY / every)
            .map(|n| opened - n * every)
            .filter(is_quiet)
            .collect()
    }

    /// The verdict on a deploy at `at` that was undone at `undone`. Without `least`, changes of any size count.
    pub(crate) fn verdict(&self, at: i64, undone: Option<i64>, least: bool) -> Report {
        let point = |at: i64| ((at - self.base) / self.step) as usize;
        let earlier: Vec<usize> = self
            .deploys()
            .iter()
            .filter(|deploy| deploy.at < at)
            .map(|deploy| point(deploy.at))
            .collect();
        // The first point that begins after it.
        let end = point(at + self.step - 1);
        let roles = vec![
            Role {
                mine: true,
                deploys: Some(0)
            };
            self.columns.len()
        ];
        let deploys = vec![earlier.clone()];
        let input = Input {
            roles: &roles,
            deploys: &deploys,
            values: self,
            threads: 1,
        };
        let params = Params::default();
        let history = (7 * DAY / self.step) as usize;
        debug_assert!(end <= history + point(self.base + 2 * HOUR));
        let fits = |look: &u32| {
            let minutes = i64::from(*look) * MINUTE;
            minutes / self.step >= 5
                && undone.is_none_or(|undone| at + minutes <= undone)
                && end + (minutes / self.step) as usize <= self.columns[0].len()
        };
        let minutes: Vec<u32> = LOOKS.into_iter().filter(fits).collect();
        let question = Question {
            step: self.step as u32,
            end,
            gap: end - point(at),
            look: LOOKS[0],
            earlier,
        };
        let looks = judge_looks(&question, &minutes, input, &params);
        let subjects: Vec<Subject<'_>> = self
            .chosen
            .iter()
            .map(|chosen| Subject {
                name: &chosen.name,
                direction: chosen.direction,
                least: chosen.least.filter(|_| least),
            })
            .collect();
        report(&looks, &subjects, true, &params)
    }

    /// The planned deploys whose verdict is not what they are: harmful ones worse, rollbacks better, others unchanged.
    pub(crate) fn misjudged(&self) -> Vec<String> {
        let deploys = self.deploys();
        let wrong = |deploy: &Change| {
            let undoes = |other: &&Change| other.undoes == Some(deploy.at);
            let undone = deploys.iter().find(undoes).map(|other| other.at);
            let report = self.verdict(deploy.at, undone, true);
            let expected = match deploy.kind {
                Kind::Harmful => Outcome::Worse,
                Kind::Rollback => Outcome::Better,
                Kind::Harmless | Kind::Setting => Outcome::Unchanged,
            };
            // There may be too little history before the oldest.
            let is_right = report.verdict == expected || report.verdict == Outcome::NotEnoughData;
            (!is_right).then(|| {
                let verdict = report.verdict.name();
                format!("{} is {verdict}: {}", deploy.what, report.sentence)
            })
        };
        deploys.iter().filter_map(wrong).collect()
    }
}

/// The series by which the demo's rules judge its deploys.
fn chosen() -> Vec<Chosen> {
    let mut source = Memory::default();
    for filled in series() {
        source.insert(&filled.name, 60, vec![0.0]);
    }
    let budget = Budget::unlimited();
    let names = Names::read(&source, &budget, &budget, Vec::new());
    // A source in memory knows no ** below a node.
    let mut rules = rules();
    for rule in &mut rules {
        let deep = |target: &String| match target.strip_suffix("**") {
            Some(base) => (1..4)
                .map(|n| format!("{base}{}", vec!["*"; n].join(".")))
                .collect(),
            None => vec![target.clone()],
        };
        rule.targets = rule.targets.iter().flat_map(deep).collect();
    }
    let selector = Selector {
        rules: Rules::new(&rules).unwrap_or_default(),
        max_series: 1_000,
    };
    let event = Event {
        tags: vec!["deploy".to_owned(), "web".to_owned()],
        ..Event::default()
    };
    let scope = names.and_then(|names| selector.select(&event, &names));
    scope.map_or_else(|_| Vec::new(), |scope| scope.series)
}

/// The deploys that never happened, and how many of them were said to have changed something: with any change, and
/// with changes that matter to the demo.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Placebos {
    pub(crate) judged: usize,
    pub(crate) accused: usize,
    pub(crate) accused_of_much: usize,
}

/// Judges deploys that never happened at the quiet times of `week`, `every` so many seconds.
pub(crate) fn placebos(week: &Week, every: i64) -> Placebos {
    let mut placebos = Placebos::default();
    let is_accused = |report: &Report| {
        matches!(
            report.verdict,
            Outcome::Worse | Outcome::Better | Outcome::Changed
        )
    };
    for at in week.quiet(4, every) {
        let any = week.verdict(at, None, false);
        placebos.judged += usize::from(any.verdict != Outcome::NotEnoughData);
        if is_accused(&any) {
            placebos.accused += 1;
            placebos.accused_of_much += usize::from(is_accused(&week.verdict(at, None, true)));
        }
    }
    placebos
}

/// Does `work` for each of `items` on all processors.
pub(crate) fn on_all_processors<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let done = Arc::new(std::sync::Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(item) =
                    items.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
                {
                    let result = work(item);
                    if let Ok(mut done) = done.lock() {
                        done.push(result);
                    }
                }
            });
        }
    });
    done.lock()
        .map(|mut done| std::mem::take(&mut *done))
        .unwrap_or_default()
}
