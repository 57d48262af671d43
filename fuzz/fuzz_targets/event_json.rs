//! Any bytes are an event, a webhook's message, lines of events, or refused. What is taken as
//! events prints as lines that read back as the same events.
#![no_main]

use libfuzzer_sys::fuzz_target;
use render::events::{Draft, lines, webhook};

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(events) = lines::read(text) {
        let printed: String = events.iter().map(lines::write).collect();
        assert_eq!(
            lines::read(&printed).expect("what was printed is read"),
            events
        );
    }
    let Ok(json) = serde_json::from_str(text) else {
        return;
    };
    if let Ok(draft) = Draft::from_json(&json) {
        draft.check().expect("what was read is within the limits");
    }
    let drafts = [
        webhook::github("deployment", &json).ok().flatten(),
        webhook::github("deployment_status", &json).ok().flatten(),
        webhook::gitlab(&json).ok().flatten(),
        webhook::rollbar(&json).ok(),
        webhook::annotation(&json).ok(),
    ];
    for draft in drafts.into_iter().flatten() {
        draft
            .check()
            .expect("what was made of a message is within the limits");
    }
});
