//! What other programs' own messages say about deploys: GitHub, GitLab, Rollbar, Grafana.
//!
//! Each function turns one message into a [`Draft`], or `None` for a message that is understood and
//! means nothing to us. Messages about one deployment carry one key, so that its start and its end
//! become one event, in whichever order and however often they are delivered.

use serde_json::Value;

use super::draft::{MAX_WHAT, is_web_link};
use super::{Draft, Error, Status, draft};

/// Reads a GitHub webhook; `kind` is its `X-GitHub-Event` header. `deployment` starts an event,
/// `deployment_status` moves it on; `ping` and all others say nothing.
///
/// # Errors
/// [`Error::Refused`] if the message lacks what makes it one about a deployment.
pub fn github(kind: &str, message: &Value) -> Result<Option<Draft>, Error> {
    if kind != "deployment" && kind != "deployment_status" {
        return Ok(None);
    }
    let deployment = &message["deployment"];
    let (Some(id), Some(repository)) = (
        deployment["id"].as_i64(),
        text(&message["repository"]["full_name"]),
    ) else {
        return refuse("a deployment message needs \"deployment.id\" and \"repository.full_name\"");
    };
    let service = repository.rsplit('/').next().unwrap_or(repository);
    let environment = text(&deployment["environment"]);
    let sha: Option<String> = text(&deployment["sha"]).map(|sha| sha.chars().take(12).collect());
    let version = text(&deployment["ref"])
        .map(str::to_owned)
        .or_else(|| sha.clone());
    let mut draft = Draft {
        what: Some(headline(service, version.as_deref(), environment)),
        data: Some(lines([
            text(&deployment["description"]).map(str::to_owned),
            sha.map(|sha| format!("{repository} {sha}")),
            text(&deployment["creator"]["login"]).map(|login| format!("by {login}")),
        ])),
        tags: Some(tags(service, environment, version.as_deref())),
        when: time(&deployment["created_at"]),
        status: Some(Status::Started),
        link: link([&message["repository"]["html_url"]]),
        key: Some(format!("github deployment {repository} {id}")),
        ..Draft::default()
    };
    if kind == "deployment_status" {
        let status = &message["deployment_status"];
        let (state, ended) = match text(&status["state"]) {
            Some("pending" | "queued" | "in_progress" | "waiting") => (Status::Started, false),
            Some("success") => (Status::Succeeded, true),
            Some("failure" | "error") => (Status::Failed, true),
            // A deployment that a later one has replaced is still what it was.
            Some("inactive") => return Ok(None),
            _ => return refuse("\"deployment_status.state\" is not one of GitHub's"),
        };
        draft.status = Some(state);
        if ended {
            draft.until = time(&status["created_at"]).map(Some);
        }
        let links = [
            &status["log_url"],
            &status["target_url"],
            &message["repository"]["html_url"],
        ];
        draft.link = link(links);
    }
    sound(draft).map(Some)
}

/// Reads a GitLab webhook: those of kind `deployment` make events, all others say nothing.
///
/// # Errors
/// [`Error::Refused`] if the message lacks what makes it one about a deployment.
pub fn gitlab(message: &Value) -> Result<Option<Draft>, Error> {
    if message["object_kind"] != "deployment" {
        return Ok(None);
    }
    let (Some(id), Some(project)) = (
        message["deployment_id"].as_i64(),
        text(&message["project"]["path_with_namespace"]),
    ) else {
        return refuse(
            "a deployment message needs \"deployment_id\" and \"project.path_with_namespace\"",
        );
    };
    let status = match text(&message["status"]) {
        Some("created" | "running" | "blocked") => Status::Started,
        Some("success") => Status::Succeeded,
        Some("failed" | "canceled" | "skipped") => Status::Failed,
        _ => return refuse("\"status\" is not one of GitLab's"),
    };
    let service = project.rsplit('/').next().unwrap_or(project);
    let environment = text(&message["environment"]);
    let version = text(&message["ref"]).or_else(|| text(&message["short_sha"]));
    let changed = time(&message["status_changed_at"]);
    let (when, until) = match status {
        Status::Started => (changed, None),
        _ => (None, changed.map(Some)),
    };
    sound(Draft {
        what: Some(headline(service, version, environment)),
        data: Some(lines([
            text(&message["commit_title"]).map(str::to_owned),
            text(&message["short_sha"]).map(|sha| format!("{project} {sha}")),
            text(&message["user"]["username"]).map(|user| format!("by {user}")),
        ])),
        tags: Some(tags(service, environment, version)),
        when,
        until,
        status: Some(status),
        link: link([
            &message["deployable_url"],
            &message["commit_url"],
            &message["project"]["web_url"],
        ]),
        key: Some(format!("gitlab deployment {project} {id}")),
        ..Draft::default()
    })
    .map(Some)
}

/// Reads Rollbar's report of a deploy (`POST /api/1/deploy`): `environment`, `revision`,
/// `local_username` or `rollbar_username`, `comment`, `status`.
///
/// # Errors
/// [`Error::Refused`] without `environment` or `revision`, as with Rollbar.
pub fn rollbar(message: &Value) -> Result<Draft, Error> {
    let (Some(environment), Some(revision)) =
        (text(&message["environment"]), text(&message["revision"]))
    else {
        return refuse("a deploy needs \"environment\" and \"revision\"");
    };
    let version: String = revision.chars().take(12).collect();
    let user = text(&message["local_username"]).or_else(|| text(&message["rollbar_username"]));
    sound(Draft {
        what: Some(format!("deploy {version} to {environment}")),
        data: Some(lines([
            text(&message["comment"]).map(str::to_owned),
            (version != revision).then(|| revision.to_owned()),
            user.map(|user| format!("by {user}")),
        ])),
        tags: Some(vec![
            "deploy".to_owned(),
            word("env:", environment),
            word("version:", &version),
        ]),
        status: rollbar_status(message)?,
        ..Draft::default()
    })
}

/// The status in a Rollbar message, if it has one.
///
/// # Errors
/// [`Error::Refused`] for one that Rollbar does not know.
pub fn rollbar_status(message: &Value) -> Result<Option<Status>, Error> {
    match text(&message["status"]) {
        None => Ok(None),
        Some("started") => Ok(Some(Status::Started)),
        Some("succeeded") => Ok(Some(Status::Succeeded)),
        Some("failed" | "timed_out") => Ok(Some(Status::Failed)),
        Some(_) => refuse("\"status\" must be started, succeeded, failed or timed_out"),
    }
}

/// Reads a Grafana annotation: `text` (its first line is what happened, the rest data), `tags`,
/// `time` and `timeEnd` in milliseconds. What is missing stays missing, so this reads a PATCH too.
///
/// # Errors
/// [`Error::Refused`] for a field of the wrong kind.
pub fn annotation(message: &Value) -> Result<Draft, Error> {
    if !message.is_object() {
        return refuse("an annotation is a JSON object");
    }
    let millis = |name: &str| match &message[name] {
        Value::Null => Ok(None),
        // Grafana sends 0 where it means none.
        value => match value.as_f64() {
            Some(0.0) => Ok(None),
            Some(millis) => Ok(Some(millis / 1000.0)),
            None => refuse(format!("\"{name}\" must be a number of milliseconds")),
        },
    };
    let text = match &message["text"] {
        Value::Null => None,
        Value::String(text) => Some(text.as_str()),
        _ => return refuse("\"text\" must be a text"),
    };
    let (what, data) = match text.map(|text| text.split_once('\n').unwrap_or((text, ""))) {
        Some((what, data)) => (Some(cut(what.trim_end())), Some(data.to_owned())),
        None => (None, None),
    };
    let when = millis("time")?;
    // A point in time is sent as a range of no length.
    let until = millis("timeEnd")?.filter(|until| Some(*until) != when);
    let tags = match &message["tags"] {
        Value::Null => None,
        tags => draft::words(tags).map(Some)?,
    };
    sound(Draft {
        what,
        data,
        tags,
        when,
        until: until.map(Some),
        ..Draft::default()
    })
}

fn headline(service: &str, version: Option<&str>, environment: Option<&str>) -> String {
    let mut what = format!("deploy {service}");
    if let Some(version) = version {
        what += &format!(" {version}");
    }
    if let Some(environment) = environment {
        what += &format!(" to {environment}");
    }
    cut(&what)
}

fn tags(service: &str, environment: Option<&str>, version: Option<&str>) -> Vec<String> {
    let mut tags = vec!["deploy".to_owned(), word("service:", service)];
    tags.extend(environment.map(|environment| word("env:", environment)));
    tags.extend(version.map(|version| word("version:", version)));
    tags
}

/// Any value as one tag: blanks and commas would make several.
fn word(prefix: &str, value: &str) -> String {
    let joined: String = value
        .chars()
        .map(|c| {
            if c.is_whitespace() || c == ',' {
                '-'
            } else {
                c
            }
        })
        .take(200 / 4)
        .collect();
    format!("{prefix}{joined}")
}

fn cut(what: &str) -> String {
    what.chars().take(MAX_WHAT).collect()
}

fn lines<const N: usize>(parts: [Option<String>; N]) -> String {
    parts.into_iter().flatten().collect::<Vec<_>>().join("\n")
}

fn text(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !text.is_empty())
}

/// The first that is a link.
fn link<const N: usize>(values: [&Value; N]) -> Option<Option<String>> {
    let link = values
        .into_iter()
        .find_map(|value| text(value).filter(|link| is_web_link(link)))?;
    Some(Some(link.to_owned()))
}

/// A timestamp as these services write it: ISO 8601, or GitLab's `2021-04-28 21:50:00 +0200`.
fn time(value: &Value) -> Option<f64> {
    let text = text(value)?;
    let at = text.parse::<jiff::Timestamp>().ok().or_else(|| {
        let text = text.replace(" UTC", " +0000");
        let zoned = jiff::fmt::strtime::parse("%Y-%m-%d %H:%M:%S %z", text).ok()?;
        zoned.to_timestamp().ok()
    })?;
    Some(at.as_microsecond() as f64 / 1e6)
}

fn sound(draft: Draft) -> Result<Draft, Error> {
    draft.check().map(|()| draft)
}

fn refuse<T>(why: impl Into<String>) -> Result<T, Error> {
    Err(Error::Refused(why.into()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn github_message(status: Value) -> Value {
        json!({
            "action": "created",
            "deployment_status": status,
            "deployment": {
                "id": 42, "sha": "a10867b14bb761a232cd80139fbd4c0d33264240", "ref": "v1.4.2",
                "environment": "Production EU", "description": "ship it",
                "creator": {"login": "alice"}, "created_at": "2023-11-14T22:13:20Z"
            },
            "repository": {"full_name": "shop/web", "html_url": "https://github.com/shop/web"}
        })
    }

    #[test]
    fn a_github_deployment_starts_and_ends_one_event() {
        let started = github("deployment", &github_message(Value::Null))
            .unwrap()
            .unwrap();
        assert_eq!(
            started.what.as_deref(),
            Some("deploy web v1.4.2 to Production EU")
        );
        assert_eq!(
            started.tags.as_deref().unwrap(),
            [
                "deploy",
                "service:web",
                "env:Production-EU",
                "version:v1.4.2"
            ]
        );
        assert_eq!(
            started.data.as_deref(),
            Some("ship it\nshop/web a10867b14bb7\nby alice")
        );
        assert_eq!(
            (started.when, started.status),
            (Some(1_700_000_000.0), Some(Status::Started))
        );
        let state = json!({"state": "failure", "created_at": "2023-11-14T22:15:00Z", "log_url": "https://ci/1"});
        let ended = github("deployment_status", &github_message(state))
            .unwrap()
            .unwrap();
        assert_eq!(
            (ended.until, ended.status),
            (Some(Some(1_700_000_100.0)), Some(Status::Failed))
        );
        assert_eq!(
            (ended.key, ended.link),
            (started.key, Some(Some("https://ci/1".to_owned())))
        );
        let inactive = github_message(json!({"state": "inactive"}));
        assert_eq!(github("deployment_status", &inactive).unwrap(), None);
        assert_eq!(github("ping", &json!({"zen": "x"})).unwrap(), None);
        for bad in [
            json!({}),
            json!([]),
            json!({"deployment": {"id": 1}}),
            github_message(json!({"state": 5})),
        ] {
            assert!(github("deployment_status", &bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_gitlab_deployment_starts_and_ends_one_event() {
        let message = |status: &str, at: &str| {
            json!({
                "object_kind": "deployment", "status": status, "status_changed_at": at, "deployment_id": 15,
                "deployable_url": "https://gitlab/job/796", "environment": "staging",
                "project": {"path_with_namespace": "group/shop", "web_url": "https://gitlab/group/shop"},
                "short_sha": "279484c0", "ref": "main", "user": {"username": "root"}, "commit_title": "Add it"
            })
        };
        let started = gitlab(&message("running", "2023-11-14 23:13:20 +0100"))
            .unwrap()
            .unwrap();
        assert_eq!((started.when, started.until), (Some(1_700_000_000.0), None));
        let ended = gitlab(&message("success", "2023-11-14 22:15:00 UTC"))
            .unwrap()
            .unwrap();
        assert_eq!(
            (ended.when, ended.until),
            (None, Some(Some(1_700_000_100.0)))
        );
        assert_eq!(ended.key, started.key);
        assert_eq!(ended.what.as_deref(), Some("deploy shop main to staging"));
        assert_eq!(gitlab(&json!({"object_kind": "push"})).unwrap(), None);
        assert!(gitlab(&message("odd", "")).is_err());
    }

    #[test]
    fn rollbars_notice_is_an_event() {
        let draft = rollbar(&json!({
            "environment": "production", "revision": "a10867b14bb761a232", "local_username": "bob",
            "comment": "c", "status": "started"
        }))
        .unwrap();
        assert_eq!(
            draft.what.as_deref(),
            Some("deploy a10867b14bb7 to production")
        );
        assert_eq!(draft.data.as_deref(), Some("c\na10867b14bb761a232\nby bob"));
        assert_eq!(draft.status, Some(Status::Started));
        assert!(rollbar(&json!({"environment": "x"})).is_err());
    }

    #[test]
    fn an_annotation_is_an_event_in_milliseconds() {
        let draft = annotation(&json!({
            "dashboardId": 1, "time": 1_700_000_000_500_i64, "timeEnd": 1_700_000_060_000_i64,
            "tags": ["a", "b c"], "text": "what\nmore\nlines"
        }))
        .unwrap();
        assert_eq!(
            (draft.when, draft.until),
            (Some(1_700_000_000.5), Some(Some(1_700_000_060.0)))
        );
        assert_eq!(
            (draft.what.as_deref(), draft.data.as_deref()),
            (Some("what"), Some("more\nlines"))
        );
        assert_eq!(draft.tags.unwrap(), ["a", "b", "c"]);
        let point = annotation(&json!({"time": 5000, "timeEnd": 5000, "text": "x"})).unwrap();
        assert_eq!(point.until, None);
        assert!(annotation(&json!({"text": 5})).is_err());
        assert!(annotation(&json!({"time": "x"})).is_err());
    }
}
