//! Tests of the cache.

use super::shard::RIPE;
use super::*;
use crate::datapoint::PointTime;
use proptest::prelude::*;
use std::collections::BTreeMap;

const NOW: Timestamp = Timestamp(1_000);

fn point(id: u32, at: u32) -> Datapoint {
    Datapoint {
        series: SeriesId(id),
        at: PointTime::new(Timestamp(at)).unwrap(),
        value: f64::from(at) / 2.0,
    }
}

fn read(cache: &Cache, id: u32) -> Vec<u32> {
    let mut points = Vec::new();
    cache.read(SeriesId(id), &mut points);
    assert!(points.iter().all(|p| p.value == f64::from(p.at.0) / 2.0));
    points.iter().map(|point| point.at.0).collect()
}

fn insert(cache: &Cache, points: &[Datapoint]) -> Vec<SeriesId> {
    let mut woken = Vec::new();
    assert_eq!(cache.reserve(points.len()), points.len());
    cache.insert(points, NOW, &mut woken);
    woken
}

#[test]
fn points_that_the_writer_took_stay_readable() {
    let cache = Cache::new(1 << 20);
    assert_eq!(
        insert(&cache, &[point(7, 1), point(7, 2), point(9, 3)]),
        [SeriesId(7), SeriesId(9)]
    );
    let mut points = Vec::new();
    assert_eq!(cache.take(SeriesId(7), &mut points), 2);
    assert_eq!(insert(&cache, &[point(7, 4)]), [SeriesId(7)]);
    assert_eq!(read(&cache, 7), [1, 2, 4]);
    cache.put_back(SeriesId(7), cache.since(NOW, Duration::ZERO));
    assert_eq!(read(&cache, 7), [1, 2, 4]);
    points.clear();
    assert_eq!(cache.take(SeriesId(7), &mut points), 3);
    cache.done(SeriesId(7));
    assert!(read(&cache, 7).is_empty());
    assert!(!cache.holds(SeriesId(7)));
    assert_eq!(cache.len(), 1);
}

#[test]
fn a_series_whose_points_are_gone_reads_as_empty() {
    let cache = Cache::new(1 << 20);
    let many: Vec<_> = (1..200).map(|at| point(7, at)).collect();
    // The second time, the shard has given all of its memory back.
    for points in [&many[..], &many[..1]] {
        insert(&cache, points);
        cache.take(SeriesId(7), &mut Vec::new());
        cache.done(SeriesId(7));
        assert_eq!(read(&cache, 7), [0; 0]);
        assert_eq!(cache.oldest(SeriesId(7)), None);
    }
}

#[test]
fn all_that_was_taken_is_done_at_once() {
    let cache = Cache::new(1 << 20);
    let points: Vec<_> = (0..3_000).map(|id| point(id, 1)).collect();
    insert(&cache, &points);
    let before = cache.used_bytes();
    for id in 0..2_999 {
        cache.take(SeriesId(id), &mut Vec::new());
    }
    insert(&cache, &[point(5, 2)]);
    cache.all_done();
    assert_eq!((read(&cache, 5), read(&cache, 2_999)), (vec![2], vec![1]));
    assert_eq!((cache.len(), cache.holds(SeriesId(6))), (2, false));
    assert_eq!(cache.used_bytes(), before / 3_000 * 2);
}

#[test]
fn the_bound_holds() {
    let cache = Cache::new(10 * UNIT_BYTES);
    assert_eq!(cache.reserve(100), 10);
    assert_eq!(cache.reserve(1), 0);
    let points: Vec<_> = (1..=10).map(|at| point(1, at)).collect();
    cache.insert(&points, NOW, &mut Vec::new());
    // Nine tokens of thousandths take three bytes each.
    let used = 2;
    assert_eq!(cache.used_bytes(), used * UNIT_BYTES);
    let room = 10 - used;
    assert_eq!(cache.reserve(100), room);
    cache.release(room);
    cache.take(SeriesId(1), &mut Vec::new());
    cache.done(SeriesId(1));
    assert_eq!(cache.used_bytes(), 0);
    assert!(cache.is_empty());
}

#[test]
fn a_block_knows_how_long_its_first_point_has_waited() {
    let cache = Cache::new(1 << 20);
    let minute = Duration::from_secs(60);
    let at = |seconds: u32, ago: Duration| cache.since(Timestamp(seconds), ago);
    let add = |id: u32, since: Since| {
        assert_eq!(cache.reserve(1), 1);
        cache.insert_since(&[point(id, 1)], || since, &mut Vec::new());
    };
    add(5_000, at(100, 3 * minute));
    add(5_001, at(200, minute));
    add(3, at(300, minute));
    let blocks = || {
        let mut blocks = Vec::new();
        cache.blocks(&mut blocks);
        blocks
    };
    let seen: Vec<_> = blocks().iter().map(|b| (b.block, b.count)).collect();
    assert_eq!(seen, [(0, 1), (4, 2)]);
    assert!(cache.oldest_age() >= 3 * minute);
    let mut swept = Vec::new();
    cache.sweep_block(4, &mut swept);
    assert_eq!(swept.len(), 2);
    assert!(swept.iter().all(|w| w.since.clock == Timestamp(100)));
    assert!(cache.oldest_age() < 2 * minute);
    assert_eq!(cache.waiting(), 1);
    // What is not written keeps its age, and points that came meanwhile do not make it younger.
    add(5_002, at(400, Duration::ZERO));
    cache.postpone(swept[1]);
    assert!(cache.oldest_age() >= 3 * minute);
    assert_eq!(cache.read(SeriesId(5_001), &mut Vec::new()), Timestamp(100));
    assert_eq!(blocks().len(), 2);
}

#[test]
fn series_with_many_points_are_returned_early() {
    let cache = Cache::new(1 << 20);
    let points: Vec<_> = (1..=RIPE).map(|at| point(7, at)).collect();
    insert(&cache, &points);
    insert(&cache, &[point(8, 1)]);
    let mut ripe = Vec::new();
    cache.take_ripe(&mut ripe);
    assert_eq!(ripe.len(), 1);
    assert_eq!((ripe[0].series, ripe[0].count), (SeriesId(7), RIPE));
    let mut all = Vec::new();
    cache.sweep(&mut all);
    assert_eq!(all.len(), 1, "only the other one");
}

#[derive(Clone, Debug)]
enum Act {
    Insert(Vec<(u32, u32)>),
    Take(u32),
    Done,
    PutBack,
    Sweep,
}

fn act() -> impl Strategy<Value = Act> {
    // Ids of several shards and blocks.
    let id = || prop::sample::select(vec![0, 1, 1_023, 1_024, 5_000, 16_384, 16_385]);
    prop_oneof![
        4 => prop::collection::vec((id(), 1..1_000_u32), 0..30).prop_map(Act::Insert),
        3 => id().prop_map(Act::Take),
        2 => Just(Act::Done),
        1 => Just(Act::PutBack),
        1 => Just(Act::Sweep),
    ]
}

proptest! {
    #[test]
    fn behaves_as_a_map_of_lists(acts in prop::collection::vec(act(), 0..60)) {
        let cache = Cache::new(1 << 20);
        let mut twin: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        // The writer has the points of one series at most.
        let mut hand: Option<(u32, Vec<u32>)> = None;
        for act in acts {
            match act {
                Act::Insert(points) => {
                    let points: Vec<_> = points.iter().map(|(id, at)| point(*id, *at)).collect();
                    let woken = insert(&cache, &points);
                    let mut expected = Vec::new();
                    for point in &points {
                        let list = twin.entry(point.series.0).or_default();
                        if list.is_empty() { expected.push(point.series); }
                        list.push(point.at.timestamp().0);
                    }
                    prop_assert_eq!(woken, expected);
                }
                Act::Take(id) if hand.is_none() => {
                    let mut points = Vec::new();
                    let expected = twin.remove(&id).unwrap_or_default();
                    prop_assert_eq!(cache.take(SeriesId(id), &mut points), expected.len());
                    prop_assert_eq!(points.iter().map(|p| p.at.0).collect::<Vec<_>>(), expected.clone());
                    if !expected.is_empty() { hand = Some((id, expected)); }
                }
                Act::Take(_) => {}
                Act::Done => if let Some((id, _)) = hand.take() { cache.done(SeriesId(id)); },
                Act::PutBack => if let Some((id, mut points)) = hand.take() {
                    cache.put_back(SeriesId(id), cache.since(NOW, Duration::ZERO));
                    points.append(twin.entry(id).or_default());
                    twin.insert(id, points);
                },
                Act::Sweep => {
                    let mut waiting = Vec::new();
                    cache.sweep(&mut waiting);
                    let mut ids: Vec<(u32, usize)> = waiting.iter().map(|w| (w.series.0, w.count as usize)).collect();
                    ids.sort_unstable();
                    ids.dedup();
                    let expected: Vec<(u32, usize)> = twin.iter().filter(|(_, l)| !l.is_empty()).map(|(id, l)| (*id, l.len())).collect();
                    prop_assert_eq!(ids, expected);
                    for waiting in waiting { cache.postpone(waiting); }
                }
            }
            for id in [0, 1, 1_023, 1_024, 5_000, 16_384, 16_385] {
                let mut expected = hand.iter().filter(|(own, _)| *own == id).flat_map(|(_, l)| l.clone()).collect::<Vec<_>>();
                expected.extend(twin.get(&id).into_iter().flatten());
                prop_assert_eq!(read(&cache, id), expected);
            }
            let all: usize = twin.values().map(Vec::len).sum::<usize>() + hand.as_ref().map_or(0, |(_, l)| l.len());
            prop_assert_eq!(cache.len(), all);
            let held: usize = (0..SHARDS).map(|n| cache.shard(n).units()).sum();
            prop_assert_eq!(cache.used_bytes(), held * UNIT_BYTES);
            if all == 0 { prop_assert_eq!(held, 0); }
        }
    }
}
