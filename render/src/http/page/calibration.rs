//! `/impact/calibration` for people: how often the verdicts of this server accuse innocent deploys, and how that is
//! measured.

use maud::{Markup, html};

use super::layout::Layout;
use super::words::timestamp;
use super::{Page, View};
use crate::http::Params;
use crate::verdicts::Calibration;

/// The page; `None` while nothing has been measured yet.
pub(in crate::http) fn calibration_page(
    page: &Page,
    calibration: Option<&Calibration>,
    params: &Params,
) -> String {
    let view = View::of(params);
    let zone = view.zone(page);
    let content = html! {
        h1 { "How reliable are the verdicts?" }
        div data-part="calibration" {
            @match calibration {
                None => p { "This is being measured, which takes a minute or so. Load the page again for the result." },
                Some(measured) => {
                    (false_alarms(measured))
                    p class="quiet" {
                        "Measured " (timestamp(measured.updated, &zone))
                        @if !measured.complete { ", and still going on" } ". "
                        "The 24 times lie in the last three days, more than 75 minutes from each real deploy. Each gets the "
                        "tags of a real deploy, so that the same series are judged, by the same looks."
                    }
                    (real(measured))
                }
            }
        }
        form method="post" action="calibration" { button { "Measure again" } }
        (elsewhere())
    };
    let layout = Layout {
        title: "How reliable are the verdicts?",
        path: "changes",
        view: &view,
        up: "../",
        refresh: 0,
        head: html! {},
        content,
    };
    layout.document(page)
}

fn false_alarms(measured: &Calibration) -> Markup {
    let Calibration {
        placebos,
        accused,
        worse,
        without_data,
        series,
        ..
    } = *measured;
    let (low, high) = interval(accused, placebos);
    html! {
        @if placebos == 0 {
            p {
                strong { "No false-alarm rate is known yet: " }
                "none of the deploys that never happened could be judged. A verdict needs half a day of history."
            }
        } @else {
            p {
                strong {
                    (accused) " of " (placebos) " deploys that never happened were accused ("
                    (format!("{:.0} %", 100.0 * accused as f64 / placebos as f64)) ")"
                }
                ", " (worse) " of them of making something worse. " (format!("{series:.0}"))
                " series were tested for each. With so few tries the true rate lies between "
                (format!("{:.0} and {:.0} %", 100.0 * low, 100.0 * high)) " (95 % interval); the method promises at most 5 %."
            }
        }
        @if without_data > 0 { p { (without_data) " more had too little data for a verdict." } }
    }
}

/// What became of real deploys.
fn real(measured: &Calibration) -> Markup {
    html! {
        h2 { "Real deploys of the last 30 days" }
        table {
            tr { th { "Verdict" } th { "Deploys" } }
            @for (verdict, deploys) in &measured.verdicts {
                tr { td { (verdict.replace('_', " ")) } td class="number" { (deploys) } }
            }
        }
        p {
            "What people said of them: "
            @for (n, (opinion, deploys)) in measured.corrections.iter().enumerate() {
                @if n > 0 { ", " }
                (deploys) " " (opinion)
            }
            "."
        }
    }
}

/// The figures of the method on data whose truth is known.
fn elsewhere() -> Markup {
    html! {
        h2 { "On data whose truth is known" }
        p {
            "Synthetic metrics with planted changes: 91 to 96 % of the clear changes were found, 2 to 6 % of the findings "
            "were false, and 0 to 4 % of the innocent deploys were accused. Metrics of real servers at times when nothing "
            "was deployed: 4 to 5 % accused. A change is clear if it is 1.5 times as large as what its series does by itself "
            "once in a hundred times. Smaller changes are found less often: that is the price of few false alarms."
        }
    }
}

/// The 95 % interval of a share of which `hits` of `n` tries are known (Wilson's).
fn interval(hits: usize, n: usize) -> (f64, f64) {
    const Z: f64 = 1.96;
    let n = n.max(1) as f64;
    let share = hits as f64 / n;
    let middle = share + Z * Z / (2.0 * n);
    let reach = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    let whole = 1.0 + Z * Z / n;
    (
        ((middle - reach) / whole).max(0.0),
        ((middle + reach) / whole).min(1.0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_tries_leave_a_wide_interval() {
        let (low, high) = interval(1, 24);
        assert!(
            (low - 0.007).abs() < 0.001 && (high - 0.202).abs() < 0.001,
            "{low} {high}"
        );
        assert_eq!(interval(0, 24).0, 0.0);
        assert!(interval(24, 24).1 > 0.999);
        assert!(interval(0, 0).1 <= 1.0);
    }

    #[test]
    fn the_page_says_how_many_series_and_how_often() {
        let measured = Calibration {
            placebos: 24,
            accused: 1,
            series: 41.6,
            verdicts: vec![("not_enough_data", 2)],
            corrections: vec![("right", 3)],
            complete: true,
            ..Calibration::default()
        };
        let text = html! { (false_alarms(&measured)) (real(&measured)) }.into_string();
        for part in [
            "1 of 24 deploys",
            "42 series",
            "1 and 20 %",
            "not enough data",
            "3 right",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let none = false_alarms(&Calibration::default()).into_string();
        assert!(none.contains("No false-alarm rate"), "{none}");
    }
}
