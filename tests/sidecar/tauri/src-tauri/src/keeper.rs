//! Carries out what the supervisor decides, in a thread of its own: takes what happened from a channel, so that the
//! sidecar's output is always drained, and returns when all is over.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::supervisor::{Action, Event, Status, Supervisor};

const IDLE: Duration = Duration::from_secs(3600);

/// How much may wait to be read: the sidecar says little, and whatever else talks has to wait for us.
pub const ROOM: usize = 64;

/// What reaches the keeper from the outside.
#[derive(Debug)]
pub enum News {
    Line { child: u32, line: Vec<u8> },
    Exited { child: u32, code: Option<i32> },
    Stop,
}

/// The part that is Tauri's, or the operating system's.
pub trait Hands {
    /// Start the sidecar with open pipes; what it says and its end are sent as `News` of this child.
    fn spawn(&mut self, child: u32) -> Result<(), String>;
    /// Write to its standard input; one that is gone is told by `News::Exited`, not here.
    fn write(&mut self, line: &str);
    /// Kill it and close its standard input.
    fn kill(&mut self);
    fn tell(&mut self, status: Status);
}

pub fn keep(mut supervisor: Supervisor, hands: &mut impl Hands, news: &Receiver<News>) {
    let begun = Instant::now();
    let mut actions = supervisor.handle(Event::Begin, Duration::ZERO);
    loop {
        let mut failed = None;
        for action in actions {
            match action {
                Action::Spawn { child } => failed = hands.spawn(child).err().map(|message| (child, message)),
                Action::Write(line) => hands.write(&line),
                Action::Kill => hands.kill(),
                Action::Tell(status) => hands.tell(status),
                Action::Finished => return,
            }
        }
        actions = match failed {
            Some((child, message)) => supervisor.handle(Event::SpawnFailed { child, message }, begun.elapsed()),
            None => next(&mut supervisor, news, begun),
        };
    }
}

fn next(supervisor: &mut Supervisor, news: &Receiver<News>, begun: Instant) -> Vec<Action> {
    // First what is due: a sidecar that talks without end would put it off for ever.
    let due = supervisor.handle(Event::Tick, begun.elapsed());
    if !due.is_empty() {
        return due;
    }
    let wait = supervisor.deadline().map_or(IDLE, |due| due.saturating_sub(begun.elapsed()));
    match news.recv_timeout(wait) {
        Ok(News::Line { child, line }) => supervisor.handle(Event::Line { child, line: &line }, begun.elapsed()),
        Ok(News::Exited { child, code }) => supervisor.handle(Event::Exited { child, code }, begun.elapsed()),
        // The hands hold a sender for the next child, so the channel does not end before them.
        Ok(News::Stop) | Err(RecvTimeoutError::Disconnected) => supervisor.handle(Event::Stop, begun.elapsed()),
        Err(RecvTimeoutError::Timeout) => supervisor.handle(Event::Tick, begun.elapsed()),
    }
}
