//! Requests of CarbonLink: any bytes are a request or an error; names are text or a pickle that reads
//! back; and the answer to a query of several names has each of them once.
#![no_main]

use std::collections::HashSet;

use carbon::protocol::carbonlink::{Name, Request, datapoints_by_metric, parse};
use carbon::protocol::pickle::Machine;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut machine = Machine::default();
    let names = match parse(data, &mut machine) {
        Request::Invalid(why) => {
            assert!(!why.is_empty() && why.len() < 2_000);
            return;
        }
        Request::Query(name) => vec![name],
        Request::Bulk(names) => names,
        Request::Get { .. } | Request::Set { .. } => return,
    };
    let distinct: HashSet<&Name> = names.iter().collect();
    assert_eq!(distinct.len(), names.len());
    let mut answer = Vec::new();
    datapoints_by_metric(&names, |_, _| (), &mut answer).unwrap();
    let answer = &answer[4..];
    let whole = machine.read(answer).unwrap();
    let (_, by_metric) = machine.entries(whole).unwrap().last().unwrap();
    let keys = machine.entries(by_metric).unwrap().map(|(key, _)| key);
    assert_eq!(keys.count(), names.len());
});
