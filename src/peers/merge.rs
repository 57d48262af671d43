//! Puts together what several machines have of a series.

use render::Fetched;
use render::protobuf::v3::FetchResponse;

/// A peer's answer as the source of queries has it; `None` if it makes no sense.
pub fn fetched(answer: FetchResponse) -> Option<Fetched> {
    let FetchResponse {
        start_time,
        step_time,
        values,
        consolidation_func,
        x_files_factor,
        ..
    } = answer;
    if step_time < 1 || start_time < 0 {
        return None;
    }
    let length = step_time.checked_mul(i64::try_from(values.len()).ok()?)?;
    Some(Fetched {
        start: start_time,
        end: start_time.checked_add(length)?,
        step: step_time,
        values,
        aggregation: whisper::Aggregation::parse(&consolidation_func.to_lowercase())
            .unwrap_or(whisper::Aggregation::Average),
        x_files_factor,
    })
}

/// Fills what `local` does not know with what `other` knows at the same time. Of two that have no step in
/// common, the one with known values is taken, `local` first.
pub fn merge(local: &mut Fetched, other: Fetched) {
    let is_empty = |one: &Fetched| one.values.iter().all(|value| value.is_nan());
    if is_empty(local) && !is_empty(&other) && local.step != other.step {
        *local = other;
        return;
    }
    // A coarser value would be repeated, a finer one would stand for its neighbours.
    if local.step != other.step || (other.start - local.start) % local.step != 0 {
        return;
    }
    let shift = (other.start - local.start) / local.step;
    if shift < 0 {
        let missing = usize::try_from(-shift).unwrap_or(0);
        let mut values = vec![f64::NAN; missing.min(other.values.len())];
        values.append(&mut local.values);
        // A gap between the two would need values of neither.
        if missing > other.values.len() {
            local.values = values.split_off(other.values.len());
            return;
        }
        local.values = values;
        local.start = other.start;
    }
    let shift = usize::try_from(shift.max(0)).unwrap_or(0);
    if shift > local.values.len() {
        return;
    }
    for (n, value) in other.values.into_iter().enumerate() {
        match local.values.get_mut(shift + n) {
            Some(mine) if mine.is_nan() => *mine = value,
            Some(_) => {}
            None => {
                local.values.push(value);
                local.end += local.step;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn series(start: i64, step: i64, values: &[f64]) -> Fetched {
        Fetched {
            start,
            end: start + step * values.len() as i64,
            step,
            values: values.to_vec(),
            aggregation: whisper::Aggregation::Average,
            x_files_factor: 0.0,
        }
    }

    const N: f64 = f64::NAN;

    fn merged(mut local: Fetched, other: Fetched) -> (i64, i64, Vec<Option<f64>>) {
        merge(&mut local, other);
        assert_eq!(
            local.end,
            local.start + local.step * local.values.len() as i64
        );
        let values = local
            .values
            .iter()
            .map(|value| (!value.is_nan()).then_some(*value));
        (local.start, local.step, values.collect())
    }

    #[test]
    fn what_is_known_here_comes_first() {
        let got = merged(
            series(100, 10, &[1.0, N, 3.0]),
            series(100, 10, &[7.0, 8.0, N]),
        );
        assert_eq!(got, (100, 10, vec![Some(1.0), Some(8.0), Some(3.0)]));
    }

    #[test]
    fn other_steps_are_taken_only_where_nothing_is_known() {
        let got = merged(series(120, 60, &[N, N]), series(120, 10, &[1.0, 2.0]));
        assert_eq!(got, (120, 10, vec![Some(1.0), Some(2.0)]));
        let got = merged(series(120, 60, &[N, 5.0]), series(120, 10, &[1.0, 2.0]));
        assert_eq!(got, (120, 60, vec![None, Some(5.0)]));
    }

    proptest! {
        #[test]
        fn every_known_value_is_there(
            start in 0_i64..6, values in prop::collection::vec(prop::option::of(0_i32..9), 0..8),
            other_start in 0_i64..6, others in prop::collection::vec(prop::option::of(0_i32..9), 0..8),
        ) {
            let known = |start: i64, values: &[Option<i32>]| {
                let all = values.iter().enumerate();
                let known = all.filter_map(|(n, value)| Some((start + n as i64, (*value)?)));
                known.collect::<BTreeMap<i64, i32>>()
            };
            let floats = |values: &[Option<i32>]| {
                values.iter().map(|value| value.map_or(N, f64::from)).collect::<Vec<f64>>()
            };
            let mut expected = known(other_start, &others);
            expected.extend(known(start, &values));
            let touch = start <= other_start + others.len() as i64
                && other_start <= start + values.len() as i64;
            prop_assume!(touch);
            let (from, step, got) = merged(
                series(start * 10, 10, &floats(&values)),
                series(other_start * 10, 10, &floats(&others)),
            );
            prop_assert_eq!(step, 10);
            let got = got.iter().map(|value| value.map(|value| value as i32));
            let got = known(from / 10, &got.collect::<Vec<_>>());
            prop_assert_eq!(got, expected);
        }
    }
}
