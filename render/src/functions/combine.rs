//! Several series to one.

use super::{Function, Param};
use crate::aggregate::Aggregate;

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "averageSeries",
        aliases: &["avg"],
        params: &[Param::series("seriesLists").repeated()],
        help: "The mean of all series at every point.",
        example: "averageSeries(web.*.load)",
        fold: Some(Aggregate::Average),
        aggregator: true,
        call: |context, args| {
            let all = args.all_series()?;
            Ok(context.aggregate(all, Aggregate::Average, "average", None))
        },
        ..Function::PLAIN
    },
    Function {
        name: "sumSeries",
        aliases: &["sum"],
        params: &[Param::series("seriesLists").repeated()],
        help: "The sum of all series at every point. Series of different steps are brought to \
               their common multiple first, by their consolidation functions.",
        example: "sumSeries(web.*.hits)",
        fold: Some(Aggregate::Sum),
        aggregator: true,
        call: |context, args| {
            let all = args.all_series()?;
            Ok(context.aggregate(all, Aggregate::Sum, "sum", None))
        },
        ..Function::PLAIN
    },
];
