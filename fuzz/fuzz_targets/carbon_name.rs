#![no_main]
//! A series name: its canonical form is canonical, borrowed only if it is the name itself, and its file
//! stays below the root.

use std::borrow::Cow;
use std::path::{Component, Path, PathBuf};

use carbon::series::{canonical, file_path};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(name) = canonical(bytes) else { return };
    assert_eq!(canonical(name.as_bytes()).as_deref(), Ok(&*name));
    let is_borrowed = matches!(name, Cow::Borrowed(_));
    assert!(!is_borrowed || name.as_bytes() == bytes);
    let mut path = PathBuf::new();
    file_path(Path::new("/root"), &name, &mut path);
    let below = path.strip_prefix("/root").unwrap();
    assert!(
        below
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
    );
    assert!(below.components().all(|part| part.as_os_str().len() <= 255));
});
