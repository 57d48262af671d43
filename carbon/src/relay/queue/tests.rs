use super::*;

fn chunk(n: u32) -> Chunk {
    Chunk {
        lines: format!("a.b {n} {n}\n").into_bytes(),
        points: 1,
    }
}

fn open(directory: &Path) -> Queue {
    let (queue, lost) = Queue::open(directory, 1 << 30).unwrap();
    assert_eq!(lost, Lost::default());
    queue
}

fn take(queue: &mut Queue) -> Option<String> {
    let taken = queue.next(&mut Lost::default()).unwrap()?;
    queue.sent(&taken, Instant::now());
    Some(String::from_utf8(taken.chunk.lines).unwrap())
}

fn take_all(queue: &mut Queue) -> Vec<String> {
    std::iter::from_fn(|| take(queue)).collect()
}

fn lines(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| format!("a.b {n} {n}\n")).collect()
}

#[test]
fn what_was_appended_comes_out_in_order_and_again_after_a_broken_connection() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    for n in 0..10 {
        queue.append(chunk(n));
    }
    assert_eq!(queue.waiting(), 10);
    assert_eq!(take(&mut queue), Some("a.b 0 0\n".to_owned()));
    assert_eq!(take_all(&mut queue), lines(1..10));
    assert!(queue.is_sent());
    assert_eq!((queue.rewind(), queue.waiting()), (10, 10));
    queue.append(chunk(10));
    assert_eq!(take_all(&mut queue), lines(0..11));
    queue.confirm_all();
    assert_eq!((queue.bytes(), queue.waiting(), queue.rewind()), (0, 0, 0));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    queue.append(chunk(11));
    assert_eq!(take_all(&mut queue), lines(11..12));
}

#[test]
fn the_next_start_goes_on_and_damage_costs_the_damaged_frame() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    for n in 0..3 {
        queue.append(chunk(n));
    }
    drop(queue);
    let mut queue = open(dir.path());
    queue.append(chunk(3));
    assert_eq!(queue.waiting(), 4);
    drop(queue);
    let path = dir.path().join("000000000001.queue");
    let mut bytes = std::fs::read(&path).unwrap();
    let frame = (bytes.len() - MAGIC.len()) / 3;
    bytes[MAGIC.len() + frame + envelope::HEAD + 5] ^= 1;
    // The end of a write that a crash cut off.
    bytes.extend_from_slice(b"\xa5J\xff");
    std::fs::write(&path, &bytes).unwrap();
    let (mut queue, lost) = Queue::open(dir.path(), 1 << 30).unwrap();
    assert_eq!(lost.bytes, frame as u64 + 3);
    assert_eq!(queue.waiting(), 3);
    let expected = [lines(0..1), lines(2..4)].concat();
    assert_eq!(take_all(&mut queue), expected);
    assert!(queue.is_sent());
}

#[test]
fn the_oldest_segment_goes_when_there_is_no_room() {
    let dir = tempfile::tempdir().unwrap();
    let (mut queue, _) = Queue::open(dir.path(), 12 << 20).unwrap();
    let mut lost = 0;
    for n in 0..30_u32 {
        let line = format!("a.b {n} 1\n");
        let count = (1 << 20) / line.len();
        let (dropped, error) = queue.append(Chunk {
            lines: line.repeat(count).into_bytes(),
            points: count as u32,
        });
        assert!(error.is_none());
        lost += dropped.points;
    }
    assert!(lost > 0 && queue.bytes() <= 12 << 20);
    let mut seen = Vec::new();
    let mut points = 0;
    while let Some(taken) = queue.next(&mut Lost::default()).unwrap() {
        queue.sent(&taken, Instant::now());
        points += u64::from(taken.chunk.points);
        let text = String::from_utf8(taken.chunk.lines).unwrap();
        seen.push(text.split(' ').nth(1).unwrap().parse::<u32>().unwrap());
    }
    // Those that are left are the newest, without a gap.
    assert_eq!(seen, (30 - seen.len() as u32..30).collect::<Vec<_>>());
    assert!(seen.len() >= 8, "{seen:?}");
    let all: u64 = (0..30_u32)
        .map(|n| (1 << 20) / format!("a.b {n} 1\n").len() as u64)
        .sum();
    assert_eq!(points + lost, all);
}

#[test]
fn a_full_disk_is_made_up_for_when_it_has_room_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    let full = queue.begin_segment(|_| Err(io::ErrorKind::StorageFull.into()));
    assert_eq!(full.unwrap_err().kind(), io::ErrorKind::StorageFull);
    let (_, error) = queue.append(chunk(0));
    assert!(error.is_none(), "{error:?}");
    drop(queue);
    assert_eq!(take_all(&mut open(dir.path())), lines(0..1));
}

#[test]
fn what_is_only_in_memory_at_the_end_is_offered_to_the_disk_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("queue");
    let mut queue = open(&path);
    std::fs::remove_dir(&path).unwrap();
    for n in 0..2 {
        assert!(queue.append(chunk(n)).1.is_some());
    }
    let in_hand = queue.next(&mut Lost::default()).unwrap().unwrap();
    queue.put_back(in_hand);
    let (left, error) = queue.save();
    assert_eq!((left, queue.waiting()), (2, 2));
    assert_eq!(error.unwrap().kind(), io::ErrorKind::NotFound);
    std::fs::create_dir(&path).unwrap();
    assert_eq!(queue.append(chunk(2)).1.map(|error| error.kind()), None);
    assert!(matches!(queue.save(), (0, None)));
    assert_eq!(queue.waiting(), 3);
    drop(queue);
    let expected = [lines(2..3), lines(0..2)].concat();
    assert_eq!(take_all(&mut open(&path)), expected);
}
