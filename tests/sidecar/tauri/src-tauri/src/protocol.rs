//! The lines between an application and its sidecar: what is written to its standard input, and what its standard
//! output says. Whatever is not understood is `Other`; a newer sidecar may say more.

use crate::json::{self, Json};

/// What a page needs to reach the sidecar. The token is an owner's: it belongs to this application's page alone.
#[derive(Clone, PartialEq)]
pub struct Connection {
    pub http: String,
    pub ws: String,
    pub token: String,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Connection").field("http", &self.http).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Line {
    Ready(Connection),
    Fatal { code: String, message: String },
    Stopping { reason: String },
    Stopped,
    Pong,
    Other,
}

/// Read one line of the sidecar's standard output.
pub fn parse(line: &[u8]) -> Line {
    std::str::from_utf8(line).ok().and_then(json::parse).and_then(|found| meaning(&found)).unwrap_or(Line::Other)
}

fn meaning(line: &Json) -> Option<Line> {
    Some(match line.text("type")? {
        "ready" if line.number("v") == Some(1.0) => Line::Ready(Connection {
            http: line.text("http")?.into(),
            ws: line.text("ws")?.into(),
            token: line.text("token")?.into(),
        }),
        "ready" => Line::Fatal { code: "version".into(), message: "the sidecar speaks another version".into() },
        "fatal" => {
            Line::Fatal { code: line.text("code")?.into(), message: line.text("message").unwrap_or_default().into() }
        }
        "stopping" => Line::Stopping { reason: line.text("reason").unwrap_or_default().into() },
        "stopped" => Line::Stopped,
        "pong" => Line::Pong,
        _ => return None,
    })
}

/// The first line: who may ask (the origins of the webview), and whose end is the sidecar's end. It names no token,
/// so the sidecar makes one and tells it in `ready`: nothing secret is in arguments or environment.
pub fn start(origins: &[&str], host_pid: u32) -> String {
    let origins: Vec<String> = origins.iter().map(|each| json::quote(each)).collect();
    format!("{{\"type\":\"start\",\"origins\":[{}],\"host_pid\":{host_pid}}}\n", origins.join(","))
}

pub fn shutdown(grace_ms: u128) -> String {
    format!("{{\"type\":\"shutdown\",\"grace_ms\":{grace_ms}}}\n")
}

pub fn ping() -> String {
    "{\"type\":\"ping\"}\n".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: &str = r#"{"type":"ready","v":1,"host":"127.0.0.1","port":5,"http":"http://127.0.0.1:5",
        "ws":"ws://127.0.0.1:5/ws","pid":7,"token":"secret","instance":"i","epoch":"e","version":"0.1.0"}"#;

    #[test]
    fn ready_tells_where_and_with_what() {
        let connection =
            Connection { http: "http://127.0.0.1:5".into(), ws: "ws://127.0.0.1:5/ws".into(), token: "secret".into() };
        assert_eq!(parse(READY.as_bytes()), Line::Ready(connection.clone()));
        assert!(!format!("{connection:?}").contains("secret"), "a token does not belong into a log");
    }

    #[test]
    fn a_ready_of_another_version_is_no_ready() {
        let Line::Fatal { code, .. } = parse(READY.replace("\"v\":1", "\"v\":2").as_bytes()) else { panic!() };
        assert_eq!(code, "version");
    }

    #[test]
    fn every_other_line_is_known() {
        let fatal = Line::Fatal { code: "config".into(), message: "line 3".into() };
        assert_eq!(parse(br#"{"type":"fatal","code":"config","message":"line 3","pid":null}"#), fatal);
        let stopping = Line::Stopping { reason: "signal".into() };
        assert_eq!(parse(b"{\"type\":\"stopping\",\"reason\":\"signal\"}\r\n"), stopping);
        assert_eq!(parse(b"{\"type\":\"stopped\"}"), Line::Stopped);
        assert_eq!(parse(b"{\"type\":\"pong\"}\n"), Line::Pong);
    }

    #[test]
    fn stray_lines_are_other() {
        for line in [&b"hello"[..], b"", b"\xff\xfe", b"{}", b"{\"type\":1}", b"{\"type\":\"news\"}", b"[\"ready\"]"] {
            assert_eq!(parse(line), Line::Other);
        }
        assert_eq!(parse(READY.replace("secret\"", "").as_bytes()), Line::Other);
    }

    #[test]
    fn what_is_written_is_one_line_of_json_each() {
        let start = start(&["tauri://localhost", "http://tauri.localhost"], 42);
        let found = json::parse(start.trim_end()).unwrap();
        assert_eq!(found.number("host_pid"), Some(42.0));
        let origins = [Json::Text("tauri://localhost".into()), Json::Text("http://tauri.localhost".into())];
        assert_eq!(found.get("origins"), Some(&Json::List(origins.into())));
        for line in [start, shutdown(5000), ping()] {
            assert!(line.ends_with('\n') && !line.trim_end().contains('\n'));
            assert!(json::parse(line.trim_end()).unwrap().text("type").is_some());
        }
    }
}
