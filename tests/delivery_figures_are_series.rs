//! Delivery figures as series of the server's own, and the dashboard of them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use serde_json::Value;
use support::{Server, now};

#[test]
fn figures_of_deploys_are_kept_by_service_and_team() {
    let server = Server::with(&[("stats.interval", "1s"), ("carbon.infer_step", "false")]);
    let post = |body: String| {
        let accept = "Accept: application/json\r\nContent-Type: application/json\r\n";
        let answer = server.http("POST", "/events/", accept, body.as_bytes());
        let event: Value = serde_json::from_slice(&answer.body).unwrap();
        event["id"].as_i64().unwrap()
    };
    let at = now() - 7_200;
    let tags = "deploy service:web team:shop";
    post(format!(
        r#"{{"what": "web 1", "tags": "{tags} committed:{}", "when": {at}, "status": "succeeded"}}"#,
        at - 600
    ));
    let broken = post(format!(
        r#"{{"what": "web 2", "tags": "{tags}", "when": {}, "status": "rolled_back"}}"#,
        at + 600
    ));
    post(format!(
        r#"{{"what": "web back to 1", "tags": "{tags} rollback", "when": {}, "rollback_of": {broken}}}"#,
        at + 1_500
    ));
    for (name, expected) in [
        ("all.failed_percent", 50.0),
        ("service.web.failed_percent", 50.0),
        ("team.shop.restore_time_seconds", 900.0),
        ("service.web.lead_time_seconds", 600.0),
        ("all.worse_percent", 0.0),
    ] {
        let target = format!("plumbago.deploys.{name}");
        server.wait_for(&target, |values| values.last() == Some(&expected));
    }
    let page = server.get("/dashboards/deploys");
    assert_eq!(page.status, 200);
    assert!(page.text().contains("Deploys per day"), "{}", page.text());
    // They are the server's own: no application's data has arrived.
    assert_eq!(server.json("/received")["graphs"], false);
}
