//! Replays what the reference implementation of the method, written in numpy, made of synthetic
//! worlds: verdicts, groups of findings, onsets.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::Read as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

use render::impact::{
    Direction, Finding, Followed, Input, Judgement, Kind, Params, Question, Role, State, Subject,
    Values, Verdict, direction, follow, group, group_followed, judge, judge_looks, onset, report,
};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Recorded {
    World(World),
    Judge(Box<Judged>),
    Follow(Follow),
    Onset(Onset),
}

#[derive(Deserialize)]
struct Follow {
    world: u32,
    end: usize,
    service: String,
    deploys: BTreeMap<String, Vec<usize>>,
    looks: Vec<u32>,
    lasting: Vec<bool>,
    passing: Vec<bool>,
    groups: Vec<Vec<usize>>,
    verdict: String,
}

#[derive(Deserialize)]
struct World {
    world: u32,
    step: u32,
    names: Vec<String>,
    service: Vec<String>,
    values: Vec<Vec<Option<f64>>>,
}

#[derive(Deserialize)]
struct Judged {
    world: u32,
    end: usize,
    gap: usize,
    look: u32,
    service: String,
    deploys: BTreeMap<String, Vec<usize>>,
    share: f64,
    joint: Option<usize>,
    found: Vec<bool>,
    sign: Vec<f64>,
    ratio: Vec<f64>,
    like: Vec<u32>,
    comparable: Vec<u32>,
    rarity: Vec<f64>,
    before: Vec<Option<f64>>,
    after: Vec<Option<f64>>,
    effect: Vec<Option<f64>>,
    low: Vec<Option<f64>>,
    high: Vec<Option<f64>>,
    scale: Vec<String>,
    presence: Vec<bool>,
    vetoed: Vec<bool>,
    groups: Vec<Vec<usize>>,
    direction: Vec<i8>,
}

#[derive(Deserialize)]
struct Onset {
    world: u32,
    row: usize,
    guess: usize,
    answer: Option<(usize, f64, usize, usize)>,
}

fn recorded() -> Vec<Recorded> {
    let directory = std::env::var_os("PLUMBAGO_GOLDEN").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden"),
        PathBuf::from,
    );
    let mut text = String::new();
    // These were made for this project: another directory of recordings may lack them.
    let packed = [
        directory,
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden"),
    ]
    .map(|directory| directory.join("impact.jsonl.gz"));
    let packed = packed.iter().find(|path| path.exists()).unwrap();
    flate2::read::GzDecoder::new(std::fs::File::open(packed).unwrap())
        .read_to_string(&mut text)
        .unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

impl World {
    fn values_of(&self, row: usize) -> Vec<f64> {
        self.values[row]
            .iter()
            .map(|value| value.unwrap_or(f64::NAN))
            .collect()
    }
}

impl Values for World {
    fn read(&self, row: usize, points: Range<usize>, values: &mut Vec<f64>) {
        values.extend(
            self.values[row][points]
                .iter()
                .map(|value| value.unwrap_or(f64::NAN)),
        );
    }
}

fn close(ours: f64, theirs: f64) -> bool {
    ours == theirs || (ours - theirs).abs() <= 1e-9 * theirs.abs().max(1e-3)
}

fn same(ours: f64, theirs: Option<f64>) -> bool {
    theirs.map_or(ours.is_nan(), |theirs| close(ours, theirs))
}

/// The role of each series of `world` to a deploy of `service`, given the deploys of each service.
fn roles(world: &World, service: &str, deploys: &BTreeMap<String, Vec<usize>>) -> Vec<Role> {
    let of = |series: &String| Role {
        mine: series == service,
        deploys: deploys.keys().position(|scope| scope == series),
    };
    world.service.iter().map(of).collect()
}

/// Judges what was recorded.
fn judge_again(world: &World, case: &Judged) -> Judgement {
    let roles = roles(world, &case.service, &case.deploys);
    let deploys: Vec<Vec<usize>> = case.deploys.values().cloned().collect();
    let question = Question {
        step: world.step,
        end: case.end,
        gap: case.gap,
        look: case.look,
        earlier: case.deploys[&case.service].clone(),
    };
    let input = Input {
        roles: &roles,
        deploys: &deploys,
        values: world,
        threads: 2,
    };
    // Looks that a short history does not allow are recorded without any finding.
    judge(&question, input, &Params::default(), None)
        .or_else(|| judge(&question, input, &Params::default(), Some(-1.0)))
        .unwrap()
}

fn check(world: &World, case: &Judged) {
    let judged = judge_again(world, case);
    let place = format!(
        "world {} deploy {} look {}",
        case.world, case.end, case.look
    );
    assert!(
        close(judged.share, case.share),
        "{place}: share {} {}",
        judged.share,
        case.share
    );
    assert_eq!(judged.joint, case.joint, "{place}");
    let mine = |at: usize| world.service[at] == case.service;
    let names: Vec<&str> = (0..world.names.len())
        .filter(|at| mine(*at))
        .map(|at| world.names[at].as_str())
        .collect();
    assert_eq!(judged.verdicts.len(), case.found.len());
    for (at, verdict) in judged.verdicts.iter().enumerate() {
        let place = format!("{place} {}: {verdict:?}", names[at]);
        check_verdict(verdict, case, at, &place);
    }
    check_groups(&names, &judged.verdicts, case, &place);
}

/// The verdict on the series number `at`.
fn check_verdict(verdict: &Verdict, case: &Judged, at: usize, place: &str) {
    let kind = match case.scale[at].as_str() {
        "sparse" => Kind::Sparse,
        "count" => Kind::Count,
        "log" => Kind::Log,
        _ => Kind::Plain,
    };
    assert_eq!(verdict.kind, kind, "{place}");
    assert!(
        same(verdict.before, case.before[at]),
        "{place}: before {:?}",
        case.before[at]
    );
    assert!(
        same(verdict.after, case.after[at]),
        "{place}: after {:?}",
        case.after[at]
    );
    assert!(
        same(verdict.effect, case.effect[at]),
        "{place}: effect {:?}",
        case.effect[at]
    );
    assert!(
        same(verdict.low, case.low[at]),
        "{place}: low {:?}",
        case.low[at]
    );
    assert!(
        same(verdict.high, case.high[at]),
        "{place}: high {:?}",
        case.high[at]
    );
    assert!(
        close(verdict.ratio, case.ratio[at]),
        "{place}: ratio {}",
        case.ratio[at]
    );
    assert_eq!(
        (verdict.like, verdict.comparable),
        (case.like[at], case.comparable[at]),
        "{place}"
    );
    assert!(
        close(verdict.rarity, case.rarity[at]),
        "{place}: rarity {}",
        case.rarity[at]
    );
    assert_eq!(verdict.trend, case.sign[at], "{place}");
    let flags = (verdict.found, verdict.presence, verdict.vetoed);
    assert_eq!(
        flags,
        (case.found[at], case.presence[at], case.vetoed[at]),
        "{place}"
    );
}

/// Which way is worse, and which findings are told together.
fn check_groups(names: &[&str], verdicts: &[Verdict], case: &Judged, place: &str) {
    let directions: Vec<Direction> = names.iter().map(|name| direction(name)).collect();
    for (direction, recorded) in directions.iter().zip(&case.direction) {
        let expected = match recorded {
            -1 => Direction::UpIsWorse,
            1 => Direction::DownIsWorse,
            _ => Direction::Unknown,
        };
        assert_eq!(*direction, expected);
    }
    let subjects = names.iter().zip(directions);
    let subjects: Vec<Subject<'_>> = subjects
        .map(|(name, direction)| Subject {
            name,
            direction,
            least: None,
        })
        .collect();
    let verdicts = verdicts.iter().enumerate();
    let findings: Vec<Finding<'_>> = verdicts
        .filter(|(_, verdict)| verdict.found)
        .map(|(at, verdict)| Finding::new(at, &subjects[at], verdict))
        .collect();
    assert_eq!(group(&findings), case.groups, "{place}");
}

#[test]
fn golden_verdicts_equal_the_reference() {
    let mut worlds = BTreeMap::new();
    let (mut judged, mut found) = (0, 0);
    for recorded in recorded() {
        match recorded {
            Recorded::World(world) => {
                worlds.insert(world.world, world);
            }
            Recorded::Judge(case) => {
                check(&worlds[&case.world], &case);
                judged += 1;
                found += case.found.iter().filter(|found| **found).count();
            }
            Recorded::Onset(_) | Recorded::Follow(_) => {}
        }
    }
    assert!(judged > 40 && found > 20, "{judged} {found}");
}

#[test]
fn golden_onsets_equal_the_reference() {
    let mut worlds = BTreeMap::new();
    let mut asked = 0;
    for recorded in recorded() {
        match recorded {
            Recorded::World(world) => {
                worlds.insert(world.world, world);
            }
            Recorded::Onset(case) => {
                let world = &worlds[&case.world];
                let ours = onset(
                    &world.values_of(case.row),
                    case.guess,
                    world.step,
                    &Params::default(),
                );
                let place = format!(
                    "world {} row {} {ours:?} {:?}",
                    case.world, case.row, case.answer
                );
                assert_eq!(ours.is_some(), case.answer.is_some(), "{place}");
                if let (Some(ours), Some((at, size, like, comparable))) = (ours, case.answer) {
                    assert_eq!(
                        (ours.at, ours.like, ours.comparable),
                        (at, like, comparable),
                        "{place}"
                    );
                    assert!(close(ours.size, size), "{place}");
                }
                asked += 1;
            }
            Recorded::Judge(_) | Recorded::Follow(_) => {}
        }
    }
    assert!(asked > 50, "{asked}");
}

/// All of a judgement but the changes at placebos, which only the longest look has.
fn without_placebos(judgement: &Judgement) -> String {
    let mut judgement = judgement.clone();
    for verdict in &mut judgement.verdicts {
        verdict.placebos.clear();
    }
    // Some values are NaN.
    format!("{judgement:?}")
}

fn check_looks(world: &World, case: &Follow) {
    let roles = roles(world, &case.service, &case.deploys);
    let deploys: Vec<Vec<usize>> = case.deploys.values().cloned().collect();
    let params = Params::default();
    let question = |look: u32| Question {
        step: world.step,
        end: case.end,
        gap: 0,
        look,
        earlier: case.deploys[&case.service].clone(),
    };
    let input = Input {
        roles: &roles,
        deploys: &deploys,
        values: world,
        threads: 2,
    };
    let look = |look: &u32| {
        // As recorded: a look that a short history does not allow finds nothing.
        let judged = judge(&question(*look), input, &params, None);
        let judged = judged.or_else(|| judge(&question(*look), input, &params, Some(-1.0)));
        (*look, judged.unwrap())
    };
    let looks: Vec<(u32, Judgement)> = case.looks.iter().map(look).collect();
    let place = format!("world {} deploy {}", case.world, case.end);
    for (minutes, together) in judge_looks(&question(0), &case.looks, input, &params) {
        let alone = looks.iter().find(|(look, _)| *look == minutes).unwrap();
        assert_eq!(
            without_placebos(&together),
            without_placebos(&alone.1),
            "{place} look {minutes}"
        );
    }
    let followed = follow(&looks);
    let is = |state: State| -> Vec<bool> {
        let of = |one: &Followed| one.state == Some(state);
        followed.iter().map(of).collect()
    };
    assert_eq!(is(State::Lasting), case.lasting, "{place}");
    assert_eq!(is(State::Passing), case.passing, "{place}");
    let names = world.names.iter().zip(&roles);
    let subjects: Vec<Subject<'_>> = names
        .filter(|(_, role)| role.mine)
        .map(|(name, _)| Subject {
            name,
            direction: direction(name),
            least: None,
        })
        .collect();
    assert_eq!(
        group_followed(&looks, &followed, &subjects),
        case.groups,
        "{place}"
    );
    let report = report(&looks, &subjects, true, &params);
    assert_eq!(report.verdict.name(), case.verdict, "{place}");
    let named: Vec<&str> = report.series.iter().map(|one| &*one.name).collect();
    let groups = case.groups.iter().flatten().map(|at| subjects[*at].name);
    assert!(
        named
            .iter()
            .copied()
            .zip(groups)
            .all(|(ours, theirs)| ours == theirs),
        "{place}"
    );
    assert_eq!(
        report.changed,
        case.groups.iter().map(Vec::len).sum::<usize>()
    );
}

#[test]
fn golden_sequences_of_looks_equal_the_reference() {
    let mut worlds = BTreeMap::new();
    let (mut followed, mut lasting, mut passing) = (0, 0, 0);
    for recorded in recorded() {
        match recorded {
            Recorded::World(world) => {
                worlds.insert(world.world, world);
            }
            Recorded::Follow(case) => {
                check_looks(&worlds[&case.world], &case);
                followed += 1;
                lasting += case.lasting.iter().filter(|one| **one).count();
                passing += case.passing.iter().filter(|one| **one).count();
            }
            Recorded::Judge(_) | Recorded::Onset(_) => {}
        }
    }
    assert!(
        followed > 15 && lasting > 10 && passing > 0,
        "{followed} {lasting} {passing}"
    );
}
