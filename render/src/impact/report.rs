//! The verdict on a deploy as people and programs see it, and as the event store keeps it.
//!
//! Its JSON is part of the interface: the field `impact` of an event, the answer of `/impact`, the body of
//! the webhook.

use serde::{Deserialize, Serialize};

/// What a deploy did to its series, all in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// At least one series got worse.
    Worse,
    /// At least one series got better, and no series got worse.
    Better,
    /// At least one series changed, and for no changed series the better direction is known.
    Changed,
    /// Series could be judged, and no change was found.
    Unchanged,
    /// No series could be judged.
    #[default]
    NotEnoughData,
}

impl Outcome {
    /// Every outcome, worst first.
    pub const ALL: [Self; 5] = [
        Self::Worse,
        Self::Changed,
        Self::NotEnoughData,
        Self::Unchanged,
        Self::Better,
    ];

    /// The word for it in JSON and in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Worse => "worse",
            Self::Better => "better",
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::NotEnoughData => "not_enough_data",
        }
    }
}

/// How long a change lasted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Seen at the latest look, but no look of half an hour or more has confirmed it yet.
    #[default]
    SoFar,
    /// Found at a look of half an hour or more.
    Lasting,
    /// Seen at an early look and gone at a later one.
    Passing,
}

/// The value of a change for the operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Worth {
    /// It changed in the direction that is worse.
    Worse,
    /// It changed in the other direction.
    Better,
    /// Neither direction is known to be worse.
    #[default]
    Unknown,
}

/// A person's opinion of a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Correction {
    /// The verdict was right.
    Right,
    /// The verdict was wrong: the deploy did not do this, or did something else.
    Wrong,
    /// The change was intended.
    Expected,
}

impl Correction {
    /// Every correction.
    pub const ALL: [Self; 3] = [Self::Right, Self::Wrong, Self::Expected];

    /// The word for it in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Right => "right",
            Self::Wrong => "wrong",
            Self::Expected => "expected",
        }
    }

    /// The correction called `name`.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }
}

/// What a deploy did to one series. Only series with a finding have one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SeriesReport {
    /// The name of the series.
    pub name: String,
    /// Series of one group changed together; groups are numbered from 0, the strongest first.
    pub group: usize,
    /// How long the change lasted.
    pub state: State,
    /// Whether it is worse.
    pub worth: Worth,
    /// 1 for a rise (or a series that began to report), -1 for a fall (or one that stopped).
    pub trend: i8,
    /// Whether the finding is that the series stopped or began to report.
    pub presence: bool,
    /// The level before, in the unit of the series.
    pub before: Option<f64>,
    /// The level after.
    pub after: Option<f64>,
    /// The lower end of the 90 % interval of the change, in the unit of the series.
    pub low: Option<f64>,
    /// The upper end.
    pub high: Option<f64>,
    /// The size of the change over the series' own largest usual change.
    pub ratio: f64,
    /// Comparable times at which the series changed at least as much by itself.
    pub like: u32,
    /// Comparable times.
    #[serde(rename = "moments")]
    pub comparable: u32,
    /// All of this as a sentence.
    pub sentence: String,
}

/// One look at a deploy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookReport {
    /// Minutes after the deploy's end.
    pub minutes: u32,
    /// Series in which this look found a change.
    pub found: usize,
}

/// The verdict on one deploy, over all looks so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// The verdict.
    pub verdict: Outcome,
    /// The verdict as a sentence for people.
    pub sentence: String,
    /// Whether all looks were taken; before that the verdict holds "so far".
    pub complete: bool,
    /// The changed series: groups one after the other, each with its strongest series first; series that
    /// changed for a few minutes only at the end. In lists of events only the first few.
    pub series: Vec<SeriesReport>,
    /// Series with a change that lasts, or that is seen so far.
    pub changed: usize,
    /// Groups of series that changed together.
    pub groups: usize,
    /// Series that changed for a few minutes only.
    pub passing: usize,
    /// The looks taken so far.
    pub looks: Vec<LookReport>,
    /// Series of the deploy's scope that could be judged.
    pub tested: usize,
    /// Series of the scope with too little data.
    pub without_data: usize,
    /// Series of the scope that were left out because there were too many.
    pub left_out: usize,
    /// Series outside of the scope that the verdict was compared with.
    pub controls: usize,
    /// Series that changed much, but no more than the series outside of the scope did.
    pub vetoed: usize,
    /// Series whose change was smaller than the smallest change that matters.
    pub too_small: usize,
    /// Comparable times without a deploy, in the middle of the series.
    #[serde(rename = "moments")]
    pub comparable: u32,
    /// The share of its level by which half of the series would have had to change for a finding.
    pub visible: Option<f64>,
    /// The ids of earlier deploys of the same scope that cannot be distinguished from this one.
    pub joint: Vec<i64>,
    /// The ids of later deploys of the same scope within the looks so far: a change may be theirs.
    pub followed: Vec<i64>,
    /// When the next look can be taken, in Unix seconds.
    pub next: Option<f64>,
    /// When it was computed, in Unix seconds.
    pub updated: f64,
    /// A person's opinion of it.
    pub correction: Option<Correction>,
}

impl Report {
    /// How many series a verdict has in lists of events.
    pub const BRIEF: usize = 3;

    /// The same with the strongest [`Self::BRIEF`] series only.
    pub fn brief(&self) -> Self {
        let mut brief = Self {
            series: Vec::new(),
            ..self.clone()
        };
        brief
            .series
            .extend(self.series.iter().take(Self::BRIEF).cloned());
        brief
    }

    /// Bytes that it takes, about.
    pub(crate) fn text_len(&self) -> usize {
        let series = self.series.iter();
        let series = series.map(|one| one.name.len() + one.sentence.len() + 256);
        self.sentence.len() + 512 + series.sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_json_are_fixed() {
        for outcome in Outcome::ALL {
            let json = serde_json::to_value(outcome).unwrap();
            assert_eq!(json, outcome.name());
        }
        for correction in Correction::ALL {
            let json = serde_json::to_value(correction).unwrap();
            assert_eq!(json, correction.name());
            assert_eq!(Correction::parse(correction.name()), Some(correction));
        }
        let report = Report {
            series: vec![SeriesReport::default(); 5],
            ..Report::default()
        };
        let json = serde_json::to_value(report.brief()).unwrap();
        assert_eq!(json["series"].as_array().unwrap().len(), Report::BRIEF);
        for key in [
            "verdict", "sentence", "complete", "looks", "tested", "moments", "updated",
        ] {
            assert!(json.get(key).is_some(), "{key}");
        }
        assert_eq!(json["series"][0]["state"], "so_far");
        assert_eq!(json["series"][0]["worth"], "unknown");
        assert_eq!(
            serde_json::from_value::<Report>(json).unwrap(),
            report.brief()
        );
    }

    #[test]
    fn verdicts_of_other_versions_are_read_as_far_as_they_go() {
        let report: Report = serde_json::from_str(r#"{"verdict": "worse", "later": 1}"#).unwrap();
        assert_eq!(report.verdict, Outcome::Worse);
    }
}
