//! The property of a queue for the fuzz target.

use std::time::Instant;

use super::queue::{Chunk, Lost, Queue, each_frame};

/// Everything that the queue gives, in order.
fn take_all(queue: &mut Queue) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while let Ok(Some(taken)) = queue.next(&mut Lost::default()) {
        queue.sent(&taken, Instant::now());
        all.push(taken.chunk.lines);
    }
    all
}

/// What is valid in `segment` comes first, then `chunks`; all of it again after a broken connection.
pub(crate) fn check(segment: &[u8], chunks: &[Vec<u8>]) {
    let directory = std::env::temp_dir().join(format!("relay-queue-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&directory);
    let made = std::fs::create_dir_all(&directory);
    made.and_then(|()| std::fs::write(directory.join("000000000001.queue"), segment))
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut expected = Vec::new();
    let _ = each_frame(segment, |_, _, lines| expected.push(lines.to_vec()));
    let (mut queue, _) = Queue::open(&directory, 1 << 30)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    for lines in chunks {
        let (lost, error) = queue.append(Chunk {
            lines: lines.clone(),
            points: 1,
        });
        assert!(error.is_none() && lost == Lost::default());
        expected.push(lines.clone());
    }
    assert_eq!(take_all(&mut queue), expected);
    assert!(queue.is_sent());
    queue.rewind();
    assert_eq!(take_all(&mut queue), expected);
    queue.confirm_all();
    assert_eq!(queue.bytes(), 0);
    let _ = std::fs::remove_dir_all(&directory);
}
