//! Variables of dashboards: `$app` in targets, titles and patterns, chosen on the page.

use maud::{Markup, html};

use super::dashboard::{Dashboard, Panel, Variable};
use super::{Page, View};

/// Values offered for a variable.
const MOST_VALUES: usize = 500;
/// The longest value, in bytes.
const LONGEST: usize = 200;

/// Whether `name` can be a variable's.
pub(super) fn is_name(name: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && name.len() <= 50 && name.bytes().all(known)
}

/// Whether `value` may be put into a target: it cannot end a name or a text there.
fn is_value(value: &str) -> bool {
    let known = |c: char| c.is_alphanumeric() || "_-.*:@+/".contains(c);
    !value.is_empty() && value.len() <= LONGEST && value.chars().all(known)
}

/// The chosen value of each variable, the longest names first.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Choice(Vec<(String, String)>);

impl Choice {
    fn new(mut pairs: Vec<(String, String)>) -> Self {
        pairs.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        Self(pairs)
    }

    /// Some value for each of `variables`.
    pub(super) fn any(variables: &[Variable]) -> Self {
        let some = variables
            .iter()
            .map(|one| (one.name.clone(), "x".to_owned()));
        Self::new(some.collect())
    }

    /// `text` with the values of `$NAME` and `${NAME}`.
    pub(super) fn put_into(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, value) in &self.0 {
            text = text.replace(&format!("${{{name}}}"), value);
            text = text.replace(&format!("${name}"), value);
        }
        text
    }

    /// `panel` with the values.
    pub(super) fn put_into_panel(&self, panel: &Panel) -> Panel {
        let put = |text: &String| self.put_into(text);
        let mut done = panel.clone();
        done.title = put(&panel.title);
        done.targets = panel.targets.iter().map(put).collect();
        done.needs = put(&panel.needs);
        done.events = panel.events.as_ref().map(put);
        for link in &mut done.links {
            link.url = self.put_into(&link.url);
        }
        done
    }
}

/// A variable with its values on this server.
pub(super) struct Offered {
    name: String,
    values: Vec<String>,
    chosen: String,
}

/// The variables of `dashboard` with their values, and the choice of `view`. Values that cannot be
/// one are reported in `view`.
pub(super) fn offered(
    page: &Page,
    dashboard: &Dashboard,
    view: &mut View,
) -> (Vec<Offered>, Choice) {
    let mut all = Vec::new();
    for variable in &dashboard.variables {
        let found = page.0.source.find(&variable.values, &page.searching());
        let last = |path: String| path.rsplit('.').next().unwrap_or_default().to_owned();
        let nodes = found.unwrap_or_default().into_iter();
        let mut values: Vec<String> = nodes.map(|node| last(node.path)).collect();
        values.retain(|value| is_value(value));
        values.sort();
        values.dedup();
        values.truncate(MOST_VALUES);
        let asked = view
            .variables
            .iter()
            .find(|(name, _)| *name == variable.name);
        let asked = asked.map(|(_, value)| value.clone());
        if let Some(value) = asked.as_ref().filter(|value| !is_value(value)) {
            let problem = format!("{}: {value:?} cannot be a part of a name", variable.name);
            view.problems.push(problem);
        }
        let default = Some(variable.default.clone()).filter(|value| is_value(value));
        let chosen = asked
            .filter(|value| is_value(value))
            .or(default)
            .or_else(|| values.first().cloned())
            .unwrap_or_else(|| "*".to_owned());
        all.push(Offered {
            name: variable.name.clone(),
            values,
            chosen,
        });
    }
    let pairs = all.iter().map(|one| (one.name.clone(), one.chosen.clone()));
    let choice = Choice::new(pairs.collect());
    (all, choice)
}

/// A form that chooses the values.
pub(super) fn form(all: &[Offered], view: &View) -> Markup {
    let hidden = view.pairs().filter(|(name, _)| !name.starts_with("var-"));
    html! {
        @if !all.is_empty() {
            form class="variables" method="get" {
                @for one in all {
                    @let missing = !one.values.contains(&one.chosen);
                    label {
                        (one.name)
                        select name={ "var-" (one.name) } {
                            @if missing { option selected { (one.chosen) } }
                            @for value in &one.values {
                                option selected[*value == one.chosen] { (value) }
                            }
                        }
                    }
                }
                @for (name, value) in hidden { input type="hidden" name=(name) value=(value); }
                button { "Show" }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_name_is_put_in_first() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let choice = Choice::new(vec![pair("app", "shop"), pair("apps", "all")]);
        assert_eq!(
            choice.put_into("$app.$apps.${app}s.$other"),
            "shop.all.shops.$other"
        );
    }

    #[test]
    fn a_value_cannot_leave_the_name_that_it_is_put_into() {
        for value in ["a,b", "a)", "a'", "a\"", "a b", "{a}", ""] {
            assert!(!is_value(value), "{value}");
        }
        assert!(is_value("web-1.example") && is_value("*") && is_value("täst"));
        assert!(is_name("app_2") && !is_name("a-b") && !is_name(""));
    }
}
