//! What is wrong with a dashboard: values that would make a panel show an error, or nothing.

use jiff::tz::TimeZone;
use settings::{Problems, Span};

use super::super::variables::{self, Choice};
use super::{Dashboard, Link, Panel};
use crate::draw::unknown_figure;
use crate::error::Error;
use crate::events::TagQuery;
use crate::events::draft::is_web_link;
use crate::query::{self, Argument, Base, Call, Expression};
use crate::{attime, functions};

impl Dashboard {
    /// Looks for what would make a panel show an error, or nothing.
    pub(super) fn check(&self, problems: &mut Problems) {
        let Self {
            title: _,
            note: _,
            from,
            refresh,
            events,
            variables,
            links,
            panels,
        } = self;
        if attime::parse(from, &TimeZone::UTC, 1_000_000_000).is_err() {
            problems.refuse("from", format!("{from:?} is not a time"), "\"-1h\"");
        }
        if !refresh.0.is_zero() && *refresh < Span::seconds(1) {
            let wrong = format!("\"{refresh}\" is too short");
            problems.refuse("refresh", wrong, "\"1s\" or more, or \"0s\" for never");
        }
        if let Err(why) = check_events(events) {
            problems.say("events", why);
        }
        for (n, variable) in variables.iter().enumerate() {
            if !variables::is_name(&variable.name) {
                let wrong = format!("{:?} is not a name", variable.name);
                let accepted = "letters, digits and underscores, such as \"app\"";
                problems.refuse(("variables", n, "name"), wrong, accepted);
            }
        }
        for (n, link) in links.iter().enumerate() {
            if let Err(why) = link.check() {
                problems.say(("links", n, "url"), why);
            }
        }
        // A target with a variable is checked with a value that could be a node.
        let some = Choice::any(variables);
        for (n, panel) in panels.iter().enumerate() {
            panel.check(n, problems);
            if panel.targets.is_empty() {
                let wrong = "a panel without targets shows nothing";
                problems.refuse(("panels", n, "targets"), wrong, "[\"stats.shop.logins\"]");
            }
            for (i, text) in panel.targets.iter().enumerate() {
                if let Err(why) = check_target(&some.put_into(text)) {
                    problems.say(("panels", n, "targets", i), format!("{text:?}: {why}"));
                }
            }
        }
    }
}

impl Panel {
    /// Looks for wrong values of the `n`th panel, its targets excepted.
    fn check(&self, n: usize, problems: &mut Problems) {
        if let Some(figure) = unknown_figure(&self.title) {
            let wrong = format!("{figure} is not a figure");
            let accepted = "{last}, {min}, {max}, {avg} or {sum}, such as {last:percent2}";
            problems.refuse(("panels", n, "title"), wrong, accepted);
        }
        if let Some(Err(why)) = self.events.as_deref().map(check_events) {
            problems.say(("panels", n, "events"), why);
        }
        if let Some(back) = &self.compare {
            let span: Result<Span, _> = back.trim_start_matches('-').parse();
            if !span.is_ok_and(|span| !span.0.is_zero()) {
                let wrong = format!("{back:?} is not a duration");
                problems.refuse(("panels", n, "compare"), wrong, "\"7d\"");
            }
        }
        for (i, link) in self.links.iter().enumerate() {
            if let Err(why) = link.check() {
                problems.say(("panels", n, "links", i), why);
            }
        }
    }
}

impl Link {
    fn check(&self) -> Result<(), String> {
        let Self { title: _, url } = self;
        let is_path = url.starts_with('/') && !url.starts_with("//");
        match is_path || is_web_link(url) {
            true => Ok(()),
            false => Err(format!(
                "{url:?} is not an http or https address, nor a path"
            )),
        }
    }
}

fn check_events(events: &str) -> Result<(), String> {
    if ["none", ""].contains(&events) {
        return Ok(());
    }
    let read = events.parse::<TagQuery>();
    read.map(|_| ()).map_err(|why| format!("{events:?}: {why}"))
}

/// Whether all of `text` is a target, with functions that there are.
fn check_target(text: &str) -> Result<(), String> {
    let parsed = match query::parse(text) {
        Ok(parsed) => parsed,
        Err(Error::Target { message, .. }) => return Err(message),
        Err(error) => return Err(error.to_string()),
    };
    if let Some(rest) = parsed.rest {
        let rest = text.get(rest..).unwrap_or_default();
        return Err(format!("not a target from {rest:?} on"));
    }
    check_expression(&parsed.expression)
}

fn check_expression(expression: &Expression) -> Result<(), String> {
    check_base(&expression.base)?;
    expression.piped.iter().try_for_each(check_call)
}

fn check_base(base: &Base) -> Result<(), String> {
    match base {
        Base::Path(_) => Ok(()),
        Base::Call(call) => check_call(call),
        Base::Template(template) => check_base(&template.body),
    }
}

fn check_call(call: &Call) -> Result<(), String> {
    functions::named(&call.name).map_err(|error| error.to_string())?;
    let arguments = call
        .args
        .iter()
        .chain(call.keywords.iter().map(|(_, argument)| argument));
    for argument in arguments {
        if let Argument::Expression(expression) = argument {
            check_expression(expression)?;
        }
    }
    Ok(())
}
