//! The log of the index. Any bytes, and any records with a sound checksum, open as an index that
//! is the same after it was closed and opened again. What was registered, deleted and stored is
//! there after that, and a log that is cut opens all the same.
#![no_main]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use carbon::fuzzing::close_index;
use carbon::index::Index;
use carbon::series;
use libfuzzer_sys::fuzz_target;
use plumbago_fuzz::bytes::Bytes;

const MAGIC: &[u8] = b"plumbago names 1\n";

fuzz_target!(|data: &[u8]| {
    let mut input = Bytes(data);
    let directory = PathBuf::from(format!(
        "/dev/shm/plumbago-fuzz-index-{}",
        std::process::id()
    ));
    let root = directory.join("whisper");
    std::fs::create_dir_all(&root).unwrap();
    let log = directory.join("names");
    match input.below(4) {
        0 => opens_the_same_again(&root, &log, input.0),
        1 => opens_the_same_again(&root, &log, &[MAGIC, input.0].concat()),
        2 => {
            let body = input.0;
            let len = (body.len() as u32).to_le_bytes();
            let checksum = crc32fast::hash(body).to_le_bytes();
            let bytes = [MAGIC, &len, &checksum, body].concat();
            opens_the_same_again(&root, &log, &bytes);
        }
        _ => keeps_what_it_was_told(&root, &log, &mut input),
    }
});

/// Everything that the index shows: nodes, series by tags, tags.
fn shown(index: &Index) -> impl PartialEq + std::fmt::Debug + use<> {
    (
        index.find("**").unwrap(),
        index.find_tagged(&["name=~.*", "name!="]).unwrap(),
        index
            .tags()
            .into_iter()
            .map(|(_, tag)| tag)
            .filter(|tag| {
                index
                    .values(tag)
                    .is_some_and(|(_, values)| !values.is_empty())
            })
            .collect::<Vec<_>>(),
    )
}

/// An index that only reads does not list plain series under the tag `name`: it shows the same as
/// another one that only reads.
fn opens_the_same_again(root: &Path, log: &Path, bytes: &[u8]) {
    std::fs::write(log, bytes).unwrap();
    let reader = Index::open(root, log.to_owned(), true).unwrap();
    assert_eq!(
        std::fs::read(log).unwrap(),
        bytes,
        "a reader changed the log"
    );
    let writer = Index::open(root, log.to_owned(), false).unwrap();
    assert_eq!(writer.find("**").unwrap(), reader.find("**").unwrap());
    let (read, written) = (shown(&reader), shown(&writer));
    close_index(&writer).unwrap();
    drop(writer);
    let writer = Index::open(root, log.to_owned(), false).unwrap();
    assert_eq!(shown(&writer), written);
    close_index(&writer).unwrap();
    let reader = Index::open(root, log.to_owned(), true).unwrap();
    assert_eq!(shown(&reader), read);
}

fn keeps_what_it_was_told(root: &Path, log: &Path, input: &mut Bytes<'_>) {
    const NAMES: [&str; 10] = [
        "a",
        "a.b",
        "a.b.c",
        "a.d",
        "x.y",
        "m;a=1",
        "m;a=1;b=2",
        "m;b=2",
        "n.o;a=1",
        "_tagged.a.b",
    ];
    std::fs::write(log, MAGIC).unwrap();
    let mut index = Index::open(root, log.to_owned(), false).unwrap();
    let (mut plain, mut tagged) = (BTreeSet::new(), BTreeSet::new());
    while !input.is_empty() {
        let name = input.pick(&NAMES);
        match input.below(5) {
            0 => {
                index.register(name).unwrap();
                tagged.insert(name);
            }
            1 => {
                index.unregister(name).unwrap();
                tagged.remove(name);
            }
            2 => {
                index.note_stored(name.as_bytes()).unwrap();
                match series::is_tagged(name) {
                    true => tagged.insert(name),
                    false => plain.insert(name),
                };
            }
            3 => index.sync().unwrap(),
            _ => {
                close_index(&index).unwrap();
                drop(index);
                index = Index::open(root, log.to_owned(), false).unwrap();
            }
        }
        // Tag queries also see the series without tags.
        let seen: BTreeSet<_> = tagged.union(&plain).copied().collect();
        let by_tags = index.find_tagged(&["name=~.*", "name!="]).unwrap();
        assert!(by_tags.iter().eq(&seen), "{by_tags:?} {seen:?}");
        let found = index.find("**").unwrap();
        let leaves: Vec<&str> = found
            .iter()
            .filter(|node| {
                node.leaf && (!node.path.starts_with("_tagged.") || plain.contains(&*node.path))
            })
            .map(|node| &*node.path)
            .collect();
        assert!(leaves.iter().eq(&plain), "{leaves:?} {plain:?}");
    }
    index.sync().unwrap();
    let bytes = std::fs::read(log).unwrap();
    let cut = usize::from(data_sum(&bytes)) % (bytes.len() + 1);
    std::fs::write(log, &bytes[..cut]).unwrap();
    let index = Index::open(root, log.to_owned(), false).unwrap();
    assert!(
        index
            .find_tagged(&["name=~.*", "name!="])
            .unwrap()
            .iter()
            .all(|name| NAMES.contains(&&**name))
    );
}

/// A place to cut that the bytes decide.
fn data_sum(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |sum: u16, byte| {
        sum.wrapping_mul(31).wrapping_add(u16::from(*byte))
    })
}
