//! When to start the sidecar, when to wait, when to give up, how to end it: decisions only. What happened goes in
//! with the time, what to do comes out; nothing here waits, reads or starts anything.

use std::time::Duration;

use crate::protocol::{self, Connection, Line};

#[derive(Debug, Clone)]
pub struct Policy {
    /// From the start to `ready`. Unpacking one file on a cold disk, under a virus scanner, takes its time.
    pub ready_within: Duration,
    /// How long running batches may take to end; the sidecar forces its own end 3 s later.
    pub grace: Duration,
    /// From that forced end to ours.
    pub kill_after: Duration,
    /// After a kill the end is taken for granted: a grandchild that holds the pipes would keep us waiting for ever.
    pub gone_within: Duration,
    pub first_pause: Duration,
    pub longest_pause: Duration,
    /// So many ends in a row, none after `stable_after` of work, and it is given up.
    pub max_failures: u32,
    pub stable_after: Duration,
    pub ping_every: Duration,
    pub pong_within: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            ready_within: Duration::from_secs(30),
            grace: Duration::from_secs(5),
            kill_after: Duration::from_secs(4),
            gone_within: Duration::from_secs(3),
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(20),
            max_failures: 5,
            stable_after: Duration::from_secs(60),
            ping_every: Duration::from_secs(20),
            pong_within: Duration::from_secs(20),
        }
    }
}

/// What happened. `child` counts starts, so that a late word of an earlier child is not taken for the present one's.
#[derive(Debug)]
pub enum Event<'a> {
    Begin,
    SpawnFailed { child: u32, message: String },
    Line { child: u32, line: &'a [u8] },
    Exited { child: u32, code: Option<i32> },
    Tick,
    Stop,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    Spawn {
        child: u32,
    },
    Write(String),
    /// Kill the child and close its standard input: what a onefile binary unpacked and started sees that end.
    Kill,
    Tell(Status),
    /// All is over: nothing runs, nothing will be started.
    Finished,
}

/// What the application's page is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Status {
    Starting,
    Ready(Connection),
    Restarting { after: Duration, why: String },
    Failed { code: String, message: String },
    Stopped,
}

#[derive(Debug, Clone, PartialEq)]
enum Phase {
    Idle,
    Starting {
        until: Duration,
    },
    Serving {
        since: Duration,
        ping_at: Duration,
        pong_by: Option<Duration>,
    },
    /// Said farewell to; `until` it is killed.
    Stopping {
        until: Duration,
    },
    /// Killed; `until` it counts as gone. `stop`: for good.
    Killed {
        until: Duration,
        stop: bool,
    },
    Pausing {
        until: Duration,
    },
    Over,
}

pub struct Supervisor {
    policy: Policy,
    start_line: String,
    phase: Phase,
    child: u32,
    failures: u32,
    served_long: bool,
    why: Option<(String, String)>,
}

impl Supervisor {
    pub fn new(policy: Policy, origins: &[&str], host_pid: u32) -> Self {
        let start_line = protocol::start(origins, host_pid);
        let phase = Phase::Idle;
        Supervisor { policy, start_line, phase, child: 0, failures: 0, served_long: false, why: None }
    }

    /// When `Tick` is due; `None` while only an event can change anything.
    pub fn deadline(&self) -> Option<Duration> {
        match self.phase {
            Phase::Idle | Phase::Over => None,
            Phase::Serving { ping_at, pong_by, .. } => Some(pong_by.unwrap_or(ping_at)),
            Phase::Starting { until }
            | Phase::Stopping { until }
            | Phase::Killed { until, .. }
            | Phase::Pausing { until } => Some(until),
        }
    }

    pub fn handle(&mut self, event: Event<'_>, now: Duration) -> Vec<Action> {
        match event {
            Event::Begin if self.phase == Phase::Idle => self.spawn(now),
            Event::SpawnFailed { child, message } if child == self.child => {
                self.why = Some(("spawn".into(), message));
                self.ended(now)
            }
            Event::Line { child, line } if child == self.child => self.hear(protocol::parse(line), now),
            Event::Exited { child, code } if child == self.child => {
                self.why.get_or_insert_with(|| ("exit".into(), exit_text(code)));
                if code == Some(2) {
                    self.why = Some(("usage".into(), "the sidecar does not know these arguments".into()));
                }
                self.ended(now)
            }
            Event::Tick if self.deadline().is_some_and(|due| due <= now) => self.due(now),
            Event::Stop => self.stop(now),
            _ => vec![],
        }
    }

    fn spawn(&mut self, now: Duration) -> Vec<Action> {
        self.child += 1;
        self.why = None;
        self.served_long = false;
        self.phase = Phase::Starting { until: now + self.policy.ready_within };
        let write = Action::Write(self.start_line.clone());
        vec![Action::Tell(Status::Starting), Action::Spawn { child: self.child }, write]
    }

    fn hear(&mut self, line: Line, now: Duration) -> Vec<Action> {
        match (line, &mut self.phase) {
            (Line::Ready(connection), Phase::Starting { .. }) => {
                let ping_at = now + self.policy.ping_every;
                self.phase = Phase::Serving { since: now, ping_at, pong_by: None };
                vec![Action::Tell(Status::Ready(connection))]
            }
            (Line::Fatal { code, message }, _) => {
                self.why = Some((code, message));
                vec![]
            }
            (Line::Pong, Phase::Serving { pong_by, .. }) => {
                *pong_by = None;
                vec![]
            }
            (Line::Stopping { reason }, _) => {
                self.why = Some(("stopping".into(), reason));
                vec![]
            }
            _ => vec![],
        }
    }

    /// The child is no more, or never was.
    fn ended(&mut self, now: Duration) -> Vec<Action> {
        match self.phase {
            Phase::Starting { .. } => self.pause(now),
            Phase::Serving { since, .. } => {
                self.served_long = now.saturating_sub(since) >= self.policy.stable_after;
                self.pause(now)
            }
            Phase::Killed { stop: false, .. } => self.pause(now),
            Phase::Stopping { .. } | Phase::Killed { .. } => self.over(Status::Stopped),
            Phase::Idle | Phase::Pausing { .. } | Phase::Over => vec![],
        }
    }

    fn pause(&mut self, now: Duration) -> Vec<Action> {
        self.failures = if self.served_long { 1 } else { self.failures + 1 };
        let (code, message) = self.why.clone().unwrap_or_default();
        if is_permanent(&code) || self.failures >= self.policy.max_failures {
            return self.over(Status::Failed { code, message });
        }
        let doubled = self.policy.first_pause.saturating_mul(1 << (self.failures - 1).min(16));
        let after = doubled.min(self.policy.longest_pause);
        self.phase = Phase::Pausing { until: now + after };
        vec![Action::Tell(Status::Restarting { after, why: format!("{code}: {message}") })]
    }

    fn over(&mut self, last: Status) -> Vec<Action> {
        self.phase = Phase::Over;
        vec![Action::Tell(last), Action::Finished]
    }

    fn due(&mut self, now: Duration) -> Vec<Action> {
        match self.phase.clone() {
            Phase::Starting { .. } => self.kill(now, ("late", "it did not get ready in time"), false),
            Phase::Serving { since, pong_by: Some(by), .. } if now < by + self.policy.ping_every => {
                self.served_long = now.saturating_sub(since) >= self.policy.stable_after;
                self.kill(now, ("silent", "it no longer answers"), false)
            }
            // Also when a tick comes far too late: then this machine slept, and the sidecar with it.
            Phase::Serving { since, .. } => {
                let pong_by = Some(now + self.policy.pong_within);
                self.phase = Phase::Serving { since, ping_at: now + self.policy.ping_every, pong_by };
                vec![Action::Write(protocol::ping())]
            }
            Phase::Stopping { .. } => self.kill(now, ("stuck", "it did not end in time"), true),
            Phase::Killed { .. } => self.ended(now),
            Phase::Pausing { .. } => self.spawn(now),
            Phase::Idle | Phase::Over => vec![],
        }
    }

    fn kill(&mut self, now: Duration, why: (&str, &str), stop: bool) -> Vec<Action> {
        self.why = Some((why.0.into(), why.1.into()));
        self.phase = Phase::Killed { until: now + self.policy.gone_within, stop };
        vec![Action::Kill]
    }

    fn stop(&mut self, now: Duration) -> Vec<Action> {
        match self.phase {
            Phase::Starting { .. } | Phase::Serving { .. } => {
                let forced = Duration::from_secs(3);
                self.phase = Phase::Stopping { until: now + self.policy.grace + forced + self.policy.kill_after };
                vec![Action::Write(protocol::shutdown(self.policy.grace.as_millis()))]
            }
            Phase::Killed { until, .. } => {
                self.phase = Phase::Killed { until, stop: true };
                vec![]
            }
            Phase::Idle | Phase::Pausing { .. } => self.over(Status::Stopped),
            Phase::Stopping { .. } | Phase::Over => vec![],
        }
    }
}

/// What trying again cannot mend: somebody has to look at a file, or at this application.
fn is_permanent(code: &str) -> bool {
    matches!(code, "config" | "bad_start" | "db_corrupt" | "usage" | "version")
}

fn exit_text(code: Option<i32>) -> String {
    code.map_or("ended by a signal".into(), |code| format!("ended with code {code}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: &[u8] =
        br#"{"type":"ready","v":1,"http":"http://127.0.0.1:5","ws":"ws://127.0.0.1:5/ws","token":"t"}"#;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn begun() -> Supervisor {
        let mut one = Supervisor::new(Policy::default(), &["tauri://localhost"], 1);
        let actions = one.handle(Event::Begin, s(0));
        assert_eq!(actions[..2], [Action::Tell(Status::Starting), Action::Spawn { child: 1 }]);
        assert!(matches!(&actions[2], Action::Write(line) if line.contains("\"start\"")));
        one
    }

    fn serving() -> Supervisor {
        let mut one = begun();
        let actions = one.handle(Event::Line { child: 1, line: READY }, s(1));
        assert!(matches!(&actions[..], [Action::Tell(Status::Ready(_))]));
        one
    }

    fn exit(one: &mut Supervisor, code: Option<i32>, now: Duration) -> Vec<Action> {
        let child = one.child;
        one.handle(Event::Exited { child, code }, now)
    }

    #[test]
    fn a_sidecar_that_dies_comes_back_after_a_pause() {
        let mut one = serving();
        let actions = exit(&mut one, None, s(10));
        assert!(matches!(&actions[..], [Action::Tell(Status::Restarting { .. })]));
        assert_eq!(one.deadline(), Some(s(10) + Duration::from_millis(500)));
        assert_eq!(one.handle(Event::Tick, s(10)), [], "not before its time");
        assert!(one.handle(Event::Tick, s(11)).contains(&Action::Spawn { child: 2 }));
        assert!(matches!(
            &one.handle(Event::Line { child: 2, line: READY }, s(12))[..],
            [Action::Tell(Status::Ready(_))]
        ));
    }

    #[test]
    fn pauses_double_up_to_a_cap_and_then_it_is_given_up() {
        let policy = Policy { max_failures: 9, ..Policy::default() };
        let mut one = Supervisor::new(policy, &[], 1);
        one.handle(Event::Begin, s(0));
        let mut pauses = vec![];
        let mut now = s(0);
        loop {
            match &exit(&mut one, Some(3), now)[..] {
                [Action::Tell(Status::Restarting { after, .. })] => pauses.push(after.as_millis()),
                [Action::Tell(Status::Failed { code, message }), Action::Finished] => {
                    assert_eq!((code.as_str(), message.as_str()), ("exit", "ended with code 3"));
                    break;
                }
                other => panic!("{other:?}"),
            }
            now = one.deadline().unwrap();
            one.handle(Event::Tick, now);
        }
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16000, 20000, 20000]);
        assert_eq!(one.deadline(), None);
        assert_eq!(one.handle(Event::Begin, now), [], "given up is given up");
    }

    #[test]
    fn long_service_forgives_what_was_before() {
        let mut one = serving();
        for turn in 0..20_u64 {
            let now = s(1000 * turn + 1000);
            let actions = exit(&mut one, None, now);
            let [Action::Tell(Status::Restarting { after, .. })] = &actions[..] else { panic!("{actions:?}") };
            assert_eq!(after.as_millis(), 500);
            one.handle(Event::Tick, now + s(1));
            let child = one.child;
            one.handle(Event::Line { child, line: READY }, now + s(2));
        }
    }

    #[test]
    fn what_trying_again_cannot_mend_is_told_at_once() {
        for code in ["config", "bad_start", "db_corrupt"] {
            let mut one = begun();
            let line = format!("{{\"type\":\"fatal\",\"code\":\"{code}\",\"message\":\"look\"}}");
            one.handle(Event::Line { child: 1, line: line.as_bytes() }, s(1));
            let failed = Status::Failed { code: code.into(), message: "look".into() };
            assert_eq!(exit(&mut one, Some(3), s(1)), [Action::Tell(failed), Action::Finished]);
        }
        let actions = exit(&mut begun(), Some(2), s(1));
        assert!(matches!(&actions[0], Action::Tell(Status::Failed { code, .. }) if code == "usage"));
    }

    #[test]
    fn what_may_pass_is_tried_again() {
        for code in ["already_running", "bind", "db_locked"] {
            let mut one = begun();
            let line = format!("{{\"type\":\"fatal\",\"code\":\"{code}\",\"message\":\"\"}}");
            one.handle(Event::Line { child: 1, line: line.as_bytes() }, s(1));
            assert!(matches!(&exit(&mut one, Some(10), s(1))[..], [Action::Tell(Status::Restarting { .. })]));
        }
    }

    #[test]
    fn one_that_does_not_get_ready_is_killed_and_tried_again() {
        let mut one = begun();
        assert_eq!(one.handle(Event::Tick, s(29)), []);
        assert_eq!(one.handle(Event::Tick, s(30)), [Action::Kill]);
        assert_eq!(one.handle(Event::Line { child: 1, line: READY }, s(31)), [], "too late");
        assert!(matches!(&exit(&mut one, None, s(31))[..], [Action::Tell(Status::Restarting { .. })]));
    }

    #[test]
    fn one_that_cannot_be_started_is_tried_again() {
        let mut one = begun();
        let actions = one.handle(Event::SpawnFailed { child: 1, message: "no such file".into() }, s(0));
        assert!(matches!(&actions[..], [Action::Tell(Status::Restarting { why, .. })] if why.contains("no such file")));
    }

    #[test]
    fn stopping_goes_in_order_and_ends_in_force_when_it_must() {
        let mut one = serving();
        let actions = one.handle(Event::Stop, s(5));
        assert_eq!(actions, [Action::Write(protocol::shutdown(5000))]);
        assert_eq!(one.handle(Event::Stop, s(6)), [], "once is enough");
        assert_eq!(one.handle(Event::Tick, s(16)), []);
        assert_eq!(one.handle(Event::Tick, s(17)), [Action::Kill]);
        assert_eq!(one.handle(Event::Tick, s(20)), [Action::Tell(Status::Stopped), Action::Finished]);

        let mut two = serving();
        two.handle(Event::Stop, s(5));
        assert_eq!(exit(&mut two, Some(0), s(6)), [Action::Tell(Status::Stopped), Action::Finished]);
        assert_eq!(two.deadline(), None);
    }

    #[test]
    fn stopping_during_a_pause_or_a_kill_starts_nothing_more() {
        let mut one = serving();
        exit(&mut one, None, s(2));
        assert_eq!(one.handle(Event::Stop, s(2)), [Action::Tell(Status::Stopped), Action::Finished]);
        let mut two = begun();
        two.handle(Event::Tick, s(30));
        assert_eq!(two.handle(Event::Stop, s(31)), []);
        assert_eq!(exit(&mut two, None, s(31)), [Action::Tell(Status::Stopped), Action::Finished]);
    }

    #[test]
    fn a_killed_one_whose_end_nobody_tells_counts_as_gone() {
        let mut one = begun();
        one.handle(Event::Tick, s(30));
        assert!(matches!(&one.handle(Event::Tick, s(33))[..], [Action::Tell(Status::Restarting { .. })]));
    }

    #[test]
    fn words_of_an_earlier_child_change_nothing() {
        let mut one = begun();
        exit(&mut one, None, s(1));
        one.handle(Event::Tick, s(2));
        assert_eq!(one.handle(Event::Line { child: 1, line: READY }, s(2)), []);
        assert_eq!(one.handle(Event::Exited { child: 1, code: None }, s(2)), []);
        assert!(matches!(one.phase, Phase::Starting { .. }));
    }

    #[test]
    fn one_that_hangs_is_killed_but_one_that_slept_is_asked_again() {
        let mut one = serving();
        assert_eq!(one.handle(Event::Tick, s(21)), [Action::Write(protocol::ping())]);
        one.handle(Event::Line { child: 1, line: b"{\"type\":\"pong\"}" }, s(22));
        assert_eq!(one.handle(Event::Tick, s(41)), [Action::Write(protocol::ping())]);
        assert_eq!(one.handle(Event::Tick, s(3600)), [Action::Write(protocol::ping())], "the lid was closed");
        assert_eq!(one.handle(Event::Tick, s(3620)), [Action::Kill]);
    }
}
