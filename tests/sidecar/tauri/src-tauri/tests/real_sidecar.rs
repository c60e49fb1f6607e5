//! The supervision without Tauri: a real `bulkops sidecar` under `std::process`. Needs no crate:
//! `rustc --edition 2021 --test tests/real_sidecar.rs -o t && BULKOPS_COMMAND=bulkops ./t` (a line a word).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{channel, sync_channel, Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex};
use std::thread::{spawn, JoinHandle};
use std::time::Duration;

#[path = "../src/json.rs"]
mod json;
#[path = "../src/keeper.rs"]
mod keeper;
#[path = "../src/protocol.rs"]
mod protocol;
#[path = "../src/supervisor.rs"]
mod supervisor;

use keeper::{Hands, News};
use protocol::Connection;
use supervisor::{Policy, Status, Supervisor};

const ORIGIN: &str = "tauri://localhost";
const PATIENCE: Duration = Duration::from_secs(30);

/// What tauri-plugin-shell does for the application, done with the standard library.
struct StdHands {
    command: Vec<String>,
    news: SyncSender<News>,
    told: Sender<Status>,
    child: Arc<Mutex<Option<Child>>>,
    stdin: Option<ChildStdin>,
}

impl Hands for StdHands {
    fn spawn(&mut self, number: u32) -> Result<(), String> {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        self.stdin = child.stdin.take();
        let stderr = child.stderr.take().unwrap();
        spawn(move || std::io::copy(&mut BufReader::new(stderr), &mut std::io::sink()));
        let stdout = BufReader::new(child.stdout.take().unwrap());
        self.child = Arc::new(Mutex::new(Some(child)));
        let (news, child) = (self.news.clone(), self.child.clone());
        spawn(move || {
            for line in stdout.split(b'\n').map_while(Result::ok) {
                let _ = news.send(News::Line { child: number, line });
            }
            let ended = child.lock().unwrap().take();
            let code = ended.and_then(|mut child| child.wait().ok()).and_then(|status| status.code());
            let _ = news.send(News::Exited { child: number, code });
        });
        Ok(())
    }

    fn write(&mut self, line: &str) {
        if let Some(stdin) = &mut self.stdin {
            let _ = stdin.write_all(line.as_bytes()).and_then(|()| stdin.flush());
        }
    }

    fn kill(&mut self) {
        self.stdin = None;
        if let Some(child) = &mut *self.child.lock().unwrap() {
            let _ = child.kill();
        }
    }

    fn tell(&mut self, status: Status) {
        let _ = self.told.send(status);
    }
}

struct Kept {
    news: SyncSender<News>,
    told: Receiver<Status>,
    child: Arc<Mutex<Option<u32>>>,
    thread: Option<JoinHandle<()>>,
}

/// Notes the pid of each child, so that a test can kill it from the outside.
struct Noting {
    hands: StdHands,
    pid: Arc<Mutex<Option<u32>>>,
}

impl Hands for Noting {
    fn spawn(&mut self, number: u32) -> Result<(), String> {
        self.hands.spawn(number)?;
        *self.pid.lock().unwrap() = self.hands.child.lock().unwrap().as_ref().map(Child::id);
        Ok(())
    }
    fn write(&mut self, line: &str) {
        self.hands.write(line);
    }
    fn kill(&mut self) {
        self.hands.kill();
    }
    fn tell(&mut self, status: Status) {
        self.hands.tell(status);
    }
}

impl Kept {
    fn new(command: Vec<String>, policy: Policy) -> Kept {
        let (news, heard) = sync_channel(keeper::ROOM);
        let (told_by, told) = channel();
        let pid = Arc::new(Mutex::new(None));
        let hands = StdHands { command, news: news.clone(), told: told_by, child: Arc::default(), stdin: None };
        let mut noting = Noting { hands, pid: pid.clone() };
        let supervisor = Supervisor::new(policy, &[ORIGIN], std::process::id());
        let thread = Some(spawn(move || keeper::keep(supervisor, &mut noting, &heard)));
        Kept { news, told, child: pid, thread }
    }

    fn told(&self) -> Status {
        self.told.recv_timeout(PATIENCE).expect("nothing is told any more")
    }

    fn ready(&self) -> Connection {
        loop {
            match self.told() {
                Status::Ready(connection) => return connection,
                Status::Starting | Status::Restarting { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn stop(&mut self) -> Status {
        self.news.send(News::Stop).unwrap();
        self.thread.take().unwrap().join().unwrap();
        self.told.try_iter().last().unwrap()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = self.news.send(News::Stop);
            let _ = thread.join();
        }
    }
}

fn words() -> Option<Vec<String>> {
    std::env::var("BULKOPS_COMMAND").ok().map(|found| found.lines().map(String::from).collect())
}

/// `bulkops sidecar` on a folder of the test's own; nothing when no command is given to test with.
fn sidecar(name: &str) -> Option<(Vec<String>, PathBuf)> {
    let folder = std::env::temp_dir().join(format!("bulkops-rust-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("bulkops.toml"), "[server]\n").unwrap();
    let mut command = words()?;
    command.extend(["sidecar".into(), "--data-dir".into(), folder.to_str().unwrap().into()]);
    Some((command, folder))
}

fn clear(folder: &Path) {
    std::fs::remove_dir_all(folder).unwrap();
}

fn status_of(connection: &Connection, path: &str, token: Option<&str>) -> u16 {
    let address = connection.http.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let bearer = token.map(|found| format!("Authorization: Bearer {found}\r\n")).unwrap_or_default();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nOrigin: {ORIGIN}\r\n{bearer}Connection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

fn is_up(connection: &Connection) -> bool {
    TcpStream::connect(connection.http.strip_prefix("http://").unwrap()).is_ok()
}

#[test]
fn it_starts_lets_its_page_in_and_stops_in_order() {
    let Some((command, folder)) = sidecar("order") else { return };
    let mut kept = Kept::new(command, Policy::default());
    assert_eq!(kept.told(), Status::Starting);
    let connection = kept.ready();
    assert_eq!(status_of(&connection, "/api/me", Some(&connection.token)), 200);
    assert_eq!(status_of(&connection, "/api/me", None), 401);
    assert_eq!(kept.stop(), Status::Stopped);
    assert!(!is_up(&connection));
    clear(&folder);
}

#[test]
fn it_comes_back_after_a_sudden_death_with_a_new_token() {
    let Some((command, folder)) = sidecar("death") else { return };
    let mut kept = Kept::new(command, Policy { first_pause: Duration::from_millis(50), ..Policy::default() });
    let first = kept.ready();
    let pid = kept.child.lock().unwrap().unwrap();
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
    let second = kept.ready();
    assert_ne!(first.token, second.token);
    assert_eq!(status_of(&second, "/api/me", Some(&second.token)), 200);
    assert_eq!(kept.stop(), Status::Stopped);
    clear(&folder);
}

#[test]
fn pings_are_answered() {
    let Some((command, folder)) = sidecar("ping") else { return };
    let often = Duration::from_millis(50);
    let mut kept = Kept::new(command, Policy { ping_every: often, pong_within: PATIENCE, ..Policy::default() });
    let connection = kept.ready();
    assert!(kept.told.recv_timeout(often * 10).is_err(), "it goes on without a word");
    assert!(is_up(&connection));
    assert_eq!(kept.stop(), Status::Stopped);
    clear(&folder);
}

#[test]
fn a_wrong_config_is_told_once_and_not_tried_again() {
    let Some((command, folder)) = sidecar("config") else { return };
    std::fs::write(folder.join("bulkops.toml"), "[server]\nworkers = \"many\"\n").unwrap();
    let kept = Kept::new(command, Policy::default());
    assert_eq!(kept.told(), Status::Starting);
    let told = kept.told();
    assert!(matches!(&told, Status::Failed { code, .. } if code == "config"), "{told:?}");
    clear(&folder);
}

#[test]
fn a_program_that_is_not_there_is_given_up_in_the_end() {
    let quick = Duration::from_millis(1);
    let policy = Policy { first_pause: quick, max_failures: 3, ..Policy::default() };
    let kept = Kept::new(vec!["/nowhere/bulkops".into()], policy);
    let told: Vec<Status> = kept.told.iter().collect();
    assert_eq!(told.iter().filter(|each| **each == Status::Starting).count(), 3);
    assert!(matches!(told.last(), Some(Status::Failed { code, .. }) if code == "spawn"), "{told:?}");
}

#[test]
fn a_program_that_never_gets_ready_is_killed_and_given_up() {
    let quick = Duration::from_millis(20);
    let policy = Policy { ready_within: quick, first_pause: quick, max_failures: 2, ..Policy::default() };
    let kept = Kept::new(vec!["sleep".into(), "60".into()], policy);
    let told: Vec<Status> = kept.told.iter().collect();
    assert!(matches!(told.last(), Some(Status::Failed { code, .. }) if code == "late"), "{told:?}");
}

#[test]
fn a_program_that_talks_without_end_is_drained() {
    let quick = Duration::from_millis(300);
    let policy = Policy { ready_within: quick, max_failures: 1, ..Policy::default() };
    let kept = Kept::new(vec!["yes".into(), "noise".into()], policy);
    let told: Vec<Status> = kept.told.iter().collect();
    assert!(matches!(told.last(), Some(Status::Failed { code, .. }) if code == "late"), "{told:?}");
}
