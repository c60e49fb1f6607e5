#![cfg_attr(not(debug_assertions), windows_subsystem = "windows")] // no console window beside the application

mod json;
mod keeper;
mod protocol;
mod sidecar;
mod supervisor;

use tauri::{Manager, RunEvent};

fn main() {
    tauri::Builder::default()
        .plugin(tauri_plugin_shell::init())
        .invoke_handler(tauri::generate_handler![sidecar::bulkops_status])
        .setup(|app| {
            let kept = sidecar::start(app.handle())?;
            app.manage(kept);
            Ok(())
        })
        .build(tauri::generate_context!())
        .expect("the application cannot start")
        .run(|app, event| {
            if let RunEvent::ExitRequested { api, code, .. } = event {
                let kept = app.try_state::<sidecar::Sidecar>();
                if kept.is_some_and(|kept| kept.must_end_first(code.unwrap_or(0))) {
                    api.prevent_exit();
                }
            }
        });
}
