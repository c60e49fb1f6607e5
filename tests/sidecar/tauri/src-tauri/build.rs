fn main() {
    // Naming the command makes it a permission of its own, which the capability then grants to one window.
    let manifest = tauri_build::AppManifest::new().commands(&["bulkops_status"]);
    tauri_build::try_build(tauri_build::Attributes::new().app_manifest(manifest)).expect("tauri-build failed");
}
