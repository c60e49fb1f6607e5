//! The part that is Tauri's: pipes by tauri-plugin-shell, the page told by an event and a command. All decisions are
//! in `supervisor`, all waiting in `keeper`.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::mpsc::{sync_channel, SyncSender};
use std::sync::{Arc, Mutex};
use std::thread;

use serde::Serialize;
use tauri::{AppHandle, Emitter, Manager, State};
use tauri_plugin_shell::process::{CommandChild, CommandEvent};
use tauri_plugin_shell::ShellExt;

use crate::keeper::{self, Hands, News};
use crate::supervisor::{Policy, Status, Supervisor};

/// The origins of a Tauri webview: macOS and Linux, Windows, Windows with `useHttpsScheme`.
const ORIGINS: [&str; 3] = ["tauri://localhost", "http://tauri.localhost", "https://tauri.localhost"];
/// The window that gets the token; no other does.
const WINDOW: &str = "main";
const EVENT: &str = "bulkops";
/// What the application's data is, for bulkops; written once, then the user's own.
const CONFIG: &str = include_str!("../bulkops.toml");

/// What the page is told, by the event and by the command alike.
#[derive(Clone, Default, Serialize)]
pub struct View {
    state: &'static str,
    http: Option<String>,
    ws: Option<String>,
    token: Option<String>,
    message: Option<String>,
}

impl From<Status> for View {
    fn from(status: Status) -> View {
        let plain = |state| View { state, ..View::default() };
        match status {
            Status::Starting => plain("starting"),
            Status::Stopped => plain("stopped"),
            Status::Ready(to) => View { http: Some(to.http), ws: Some(to.ws), token: Some(to.token), ..plain("ready") },
            Status::Restarting { after, why } => {
                View { message: Some(format!("{why}; again in {:.1} s", after.as_secs_f32())), ..plain("restarting") }
            }
            Status::Failed { code, message } => View { message: Some(format!("{code}: {message}")), ..plain("failed") },
        }
    }
}

/// The sidecar as the application holds it.
pub struct Sidecar {
    news: SyncSender<News>,
    view: Arc<Mutex<View>>,
    over: Arc<AtomicBool>,
    exit_with: Arc<AtomicI32>,
}

impl Sidecar {
    /// Say that the application wants to end; true when it has to wait, and will be ended when the sidecar has.
    pub fn must_end_first(&self, exit_code: i32) -> bool {
        if self.over.load(Ordering::Acquire) {
            return false;
        }
        self.exit_with.store(exit_code, Ordering::Release);
        self.news.send(News::Stop).is_ok()
    }
}

/// The page asks this when it is loaded; what changes later it hears by the event.
#[tauri::command]
pub fn bulkops_status(sidecar: State<'_, Sidecar>) -> View {
    sidecar.view.lock().unwrap().clone()
}

/// Start the sidecar and keep it running until the application ends.
pub fn start(app: &AppHandle) -> Result<Sidecar, Box<dyn std::error::Error>> {
    let data_dir = app.path().app_local_data_dir()?;
    std::fs::create_dir_all(&data_dir)?;
    let config = data_dir.join("bulkops.toml");
    if !config.exists() {
        std::fs::write(&config, CONFIG)?;
    }
    let (news, heard) = sync_channel(keeper::ROOM);
    let view = Arc::new(Mutex::new(View::from(Status::Starting)));
    let over = Arc::new(AtomicBool::new(false));
    let exit_with = Arc::new(AtomicI32::new(NOT_ASKED));
    let mut hands = TauriHands { app: app.clone(), news: news.clone(), view: view.clone(), child: None };
    let sidecar = Sidecar { news, view, over: over.clone(), exit_with: exit_with.clone() };
    thread::spawn(move || {
        keeper::keep(Supervisor::new(Policy::default(), &ORIGINS, std::process::id()), &mut hands, &heard);
        over.store(true, Ordering::Release);
        match exit_with.load(Ordering::Acquire) {
            NOT_ASKED => {} // given up: the page says so, the application goes on without
            code => hands.app.exit(code),
        }
    });
    Ok(sidecar)
}

const NOT_ASKED: i32 = i32::MIN;

struct TauriHands {
    app: AppHandle,
    news: SyncSender<News>,
    view: Arc<Mutex<View>>,
    child: Option<CommandChild>,
}

impl Hands for TauriHands {
    fn spawn(&mut self, child: u32) -> Result<(), String> {
        let data_dir = self.app.path().app_local_data_dir().map_err(|error| error.to_string())?;
        let command = self.app.shell().sidecar("bulkops").map_err(|error| error.to_string())?;
        let command = command.arg("sidecar").arg("--data-dir").arg(data_dir);
        let (mut events, running) = command.spawn().map_err(|error| error.to_string())?;
        self.child = Some(running);
        let news = self.news.clone();
        // The plugin's channel has room for one event: whoever stops reading it stops the sidecar's output.
        thread::spawn(move || {
            let mut ended_with = None;
            while let Some(event) = events.blocking_recv() {
                match event {
                    CommandEvent::Stdout(line) => drop(news.send(News::Line { child, line })),
                    CommandEvent::Terminated(ended) => ended_with = ended.code,
                    _ => {} // stderr is for people; what matters is in the log in the data directory
                }
            }
            let _ = news.send(News::Exited { child, code: ended_with });
        });
        Ok(())
    }

    fn write(&mut self, line: &str) {
        if let Some(child) = &mut self.child {
            let _ = child.write(line.as_bytes());
        }
    }

    fn kill(&mut self) {
        if let Some(child) = self.child.take() {
            let _ = child.kill(); // takes the child, and so closes its standard input too
        }
    }

    fn tell(&mut self, status: Status) {
        let view = View::from(status);
        *self.view.lock().unwrap() = view.clone();
        let _ = self.app.emit_to(WINDOW, EVENT, view);
    }
}
