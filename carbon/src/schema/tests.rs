use super::*;
use whisper::{Header, Timestamp};

/// A directory with rule files, and trees of whisper files.
struct Rig {
    directory: tempfile::TempDir,
    options: Options,
}

impl Rig {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            options: Options::default(),
        }
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn with_schemas(mut self, text: &str) -> Self {
        self.options.schemas = self.write("storage-schemas.conf", text);
        self
    }

    fn with_aggregation(mut self, text: &str) -> Self {
        self.options.aggregation = self.write("storage-aggregation.conf", text);
        self
    }

    fn schema(&self) -> Schema {
        let schema = Schema::built_in(Span::seconds(10));
        schema
            .configured(&self.options, &mut Files::default())
            .unwrap()
    }

    fn create(&self, name: &str, list: &str) {
        let path = self.directory.path().join(format!("{name}.wsp"));
        let retentions = Retention::parse_carbon_list(list).unwrap();
        whisper::create(&path, &CreateOptions::new(retentions)).unwrap();
    }

    fn new_series<'a>(&'a self, name: &'a str, points: &'a [Point]) -> New<'a> {
        New {
            name,
            directory: self.directory.path(),
            points,
            interval: None,
        }
    }
}

fn at(times: &[u32]) -> Vec<Point> {
    let point = |at: &u32| Point {
        at: Timestamp(*at),
        value: 0.0,
    };
    times.iter().map(point).collect()
}

fn steps(chosen: &Chosen) -> Vec<u32> {
    let header = Header::new(
        &chosen.options.retentions,
        chosen.options.x_files_factor,
        chosen.options.aggregation,
    );
    let header = header.unwrap();
    header
        .archives()
        .iter()
        .map(|archive| archive.step.seconds())
        .collect()
}

#[test]
fn no_flush_falls_into_the_step_of_another() {
    let rig = Rig::new();
    for (flush, step) in [(10, 10), (60, 10), (5, 5), (7, 6), (1, 1), (0, 1)] {
        let schema = Schema::built_in(Span::seconds(flush));
        let chosen = schema.choose(rig.new_series("a", &[])).unwrap();
        assert_eq!(steps(&chosen), [step, 60, 600]);
        assert_eq!(chosen.reason, Reason::BuiltIn);
        assert_eq!(schema.warning(), None);
    }
    let minutes = vec![Retention::new(60, 60).unwrap()];
    let warning = Schema::new(minutes, Span::seconds(10)).warning().unwrap();
    assert!(warning.contains("60 s") && warning.contains("10 s"));
}

#[test]
fn the_first_rule_wins_and_the_sender_decides_for_the_rest() {
    let rig = Rig::new().with_schemas(
        "[a]\npattern = ^a\\.\nretentions = 60s:1d\n[b]\npattern = \\.b$\nretentions = 20s:1d,5m:30d\n",
    );
    let schema = rig.schema();
    let chosen = schema.choose(rig.new_series("a.b", &[])).unwrap();
    assert_eq!(steps(&chosen), [60]);
    let rule = |section: &str, line| Reason::Rule {
        section: section.to_owned(),
        line,
    };
    assert_eq!(chosen.reason, rule("a", 1));
    let chosen = schema.choose(rig.new_series("c.b", &[])).unwrap();
    assert_eq!(
        (steps(&chosen), chosen.reason),
        (vec![20, 300], rule("b", 4))
    );
    let one = at(&[1_000]);
    assert_eq!(schema.choose(rig.new_series("c", &one)), None);
    assert_eq!(
        schema.choose_now(rig.new_series("c", &one)).reason,
        Reason::BuiltIn
    );
    let two = at(&[1_000, 1_060]);
    let chosen = schema.choose(rig.new_series("c", &two)).unwrap();
    assert_eq!(
        (steps(&chosen), chosen.reason),
        (vec![60, 600], Reason::Interval(60))
    );
}

#[test]
fn without_inference_carbons_default_holds_beside_its_file() {
    let mut rig = Rig::new();
    rig.options.infer_step = false;
    let schema = rig.schema();
    assert_eq!(
        steps(&schema.choose(rig.new_series("c", &[])).unwrap()),
        [10, 60, 600]
    );
    let rig = rig.with_schemas("[a]\npattern = ^a\\.\nretentions = 60s:1d\n");
    let chosen = rig.schema().choose(rig.new_series("c", &[])).unwrap();
    assert_eq!(
        chosen.options.retentions,
        [Retention::new(60, 10_080).unwrap()]
    );
    assert_eq!(chosen.reason, Reason::CarbonDefault);
}

#[test]
fn the_servers_own_series_do_not_wait() {
    let rig = Rig::new();
    let schema = rig.schema();
    let one = at(&[1_000]);
    for (interval, expected) in [(1, 1), (10, 10), (20, 10), (60, 60)] {
        let new = New {
            interval: Some(interval),
            ..rig.new_series("c", &one)
        };
        let chosen = schema.choose(new).unwrap();
        assert_eq!(steps(&chosen)[0], expected);
        assert_eq!(chosen.reason, Reason::Source(interval));
    }
}

#[test]
fn siblings_decide_where_an_operator_chose_their_retentions() {
    let rig = Rig::new();
    let (one, minutes, seconds) = (at(&[60]), at(&[60, 120]), at(&[60, 70]));
    let schema = rig.schema();
    let reason = |schema: &Schema, points| {
        let chosen = schema.choose(rig.new_series("new", points));
        chosen.map(|chosen| (steps(&chosen), chosen.reason))
    };
    let like = |name: &str| Reason::Siblings {
        example: rig.directory.path().join(format!("{name}.wsp")),
    };
    // Files with built-in retentions say what another sender did.
    rig.create("a", "1m:7d,10m:5y");
    assert_eq!(reason(&schema, &one), None);
    let now = rig.schema().choose_now(rig.new_series("new", &one));
    assert_eq!((steps(&now), now.reason), (vec![60, 600], like("a")));
    // One choice is followed at once, unless it would lose points.
    rig.create("b", "60s:90d");
    let schema = rig.schema();
    assert_eq!(reason(&schema, &one), Some((vec![60], like("b"))));
    assert_eq!(reason(&schema, &minutes), Some((vec![60], like("b"))));
    assert_eq!(reason(&schema, &seconds).unwrap().1, Reason::Interval(10));
    // Of several choices the sender's fits.
    rig.create("c", "10s:1d");
    let schema = rig.schema();
    assert_eq!(reason(&schema, &one), None);
    assert_eq!(reason(&schema, &seconds), Some((vec![10], like("c"))));
    let tagged = schema.choose(rig.new_series("new;a=b", &seconds)).unwrap();
    assert_eq!(tagged.reason, Reason::Interval(10));
    let mut without = schema.clone();
    without.infer_siblings = false;
    assert_eq!(reason(&without, &minutes).unwrap().1, Reason::Interval(60));
}

#[test]
fn aggregation_follows_its_file_or_the_name() {
    let rig = Rig::new();
    let new = rig.new_series("a.count", &[]);
    let chosen = rig.schema().choose_now(new);
    assert_eq!(
        (chosen.options.aggregation, chosen.options.x_files_factor),
        (Aggregation::Sum, 0.0)
    );
    let rig = Rig::new().with_aggregation(
        "[max]\npattern = \\.max$\naggregationMethod = max\n[x]\npattern = x\nxFilesFactor = 0.1\n",
    );
    let schema = rig.schema();
    let of = |name| {
        let chosen = schema.choose_now(rig.new_series(name, &[]));
        let CreateOptions {
            aggregation,
            x_files_factor,
            ..
        } = chosen.options;
        (
            aggregation,
            x_files_factor,
            chosen.aggregation_rule.map(|(_, line)| line),
        )
    };
    assert_eq!(of("a.max"), (Aggregation::Max, 0.5, Some(1)));
    assert_eq!(of("a.x"), (Aggregation::Average, 0.1, Some(4)));
    assert_eq!(of("a.count"), (Aggregation::Average, 0.5, None));
}

#[test]
fn rules_that_are_coarser_than_a_flush_are_warned_of() {
    let text = "[carbon]\npattern = ^carbon\\.\nretentions = 60:90d\n[rest]\npattern = .*\nretentions = 60s:1d\n";
    let rig = Rig::new().with_schemas(text);
    let path = Path::new(&rig.options.schemas);
    let warnings = |flush| load_schemas(path, Span::seconds(flush)).unwrap().warnings;
    assert_eq!(warnings(60), []);
    let found = warnings(10);
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].line, found[0].place.as_str()),
        (4, "[rest] retentions")
    );
    let schema = rig.schema();
    assert!(schema.is_first_warning(0, 1));
    assert!(!schema.is_first_warning(0, 1));
    assert!(schema.is_first_warning(0, 4));
    assert!(schema.is_first_warning(1, 1));
}
