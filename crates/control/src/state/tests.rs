#![allow(clippy::disallowed_methods)]

use std::os::unix::fs::PermissionsExt;

use super::*;

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn init_makes_a_private_state_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/state");
    let env = Env::system();
    let report = init(&env, &path, &InitConfig::default()).await.unwrap();
    assert_eq!(
        report.spiffe_id.as_str(),
        "spiffe://weft.local/ns/weft-system/sa/control"
    );
    assert_eq!(names(&path), ["ca", "lock", "store.redb"]);
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);

    let again = init(&env, &path, &InitConfig::default()).await;
    let error = again.unwrap_err();
    assert!(matches!(error, ControlError::AlreadyInitialised { .. }));
    assert!(error.to_string().contains("weft control --state-dir"));

    let opened = hold(&env, &path, KeyAccess::default())
        .await
        .unwrap()
        .open(&env)
        .await
        .unwrap();
    let settings = opened.settings.unwrap();
    let audit = crate::audit::Audit::load(&env, opened.store.clone())
        .await
        .unwrap();
    let ca = CaService::load(&env, opened.store, opened.keys, &settings, audit)
        .await
        .unwrap();
    let info = ca.info().unwrap();
    assert_eq!(
        info.pin,
        report.pin.to_string(),
        "the refusal changed nothing"
    );
    assert_eq!(info.authorities.len(), 2);
}

#[tokio::test]
async fn a_failed_init_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::system();

    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = init(&env, &path, &InitConfig::default()).await.unwrap_err();
        assert!(matches!(error, ControlError::StateDir { .. }), "{error}");
    }

    let foreign = dir.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("notes.txt"), "x").unwrap();
    let error = init(&env, &foreign, &InitConfig::default())
        .await
        .unwrap_err();
    assert!(matches!(error, ControlError::NotEmpty { .. }), "{error}");
    assert_eq!(names(&foreign), ["notes.txt"]);

    let absurd = InitConfig {
        leaf_ttl: Duration::from_secs(30 * 24 * 3600),
        ..InitConfig::default()
    };
    let path = dir.path().join("absurd");
    assert!(init(&env, &path, &absurd).await.is_err());
    assert!(!path.exists());

    // The key directory cannot be made: everything made before it goes again.
    let blocked = dir.path().join("blocked");
    fs::create_dir(&blocked).unwrap();
    fs::set_permissions(&blocked, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(blocked.join("ca"), "in the way").unwrap();
    let error = init(&env, &blocked, &InitConfig::default())
        .await
        .unwrap_err();
    assert!(matches!(error, ControlError::Ca(_)), "{error}");
    assert_eq!(names(&blocked), ["ca"], "a file that is not ours stays");
}

#[tokio::test]
async fn init_never_touches_a_damaged_state() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let env = Env::system();
    init(&env, &path, &InitConfig::default()).await.unwrap();
    let keys = names(&path.join("ca"));
    fs::write(path.join("store.redb"), vec![1; 4096]).unwrap();
    let error = init(&env, &path, &InitConfig::default()).await.unwrap_err();
    assert!(
        matches!(error, ControlError::Store(StoreError::Corrupt { .. })),
        "{error}"
    );
    assert_eq!(fs::read(path.join("store.redb")).unwrap().len(), 4096);

    // Empty, or without the mesh in it, it is no better than gone.
    fs::write(path.join("store.redb"), "").unwrap();
    for _ in 0..2 {
        let error = init(&env, &path, &InitConfig::default()).await.unwrap_err();
        assert!(matches!(error, ControlError::Damaged { .. }), "{error}");
        let Err(error) = claim(&env, &path, None, KeyAccess::default()).await else {
            panic!("there is no mesh to run");
        };
        assert!(matches!(error, ControlError::Damaged { .. }), "{error}");
    }

    fs::remove_file(path.join("store.redb")).unwrap();
    let error = init(&env, &path, &InitConfig::default()).await.unwrap_err();
    assert!(matches!(error, ControlError::Damaged { .. }), "{error}");
    assert_eq!(names(&path.join("ca")), keys);
}

#[tokio::test]
async fn an_init_that_was_cut_off_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let env = Env::system();
    {
        let held = hold(&env, &path, KeyAccess::default()).await.unwrap();
        let opened = held.open(&env).await.unwrap();
        assert!(opened.settings.is_none());
        fs::write(path.join("ca/root-1-dead.key"), "left over").unwrap();
        fs::write(path.join("unfinished"), "").unwrap();
    }
    init(&env, &path, &InitConfig::default()).await.unwrap();
    assert!(!path.join("ca/root-1-dead.key").exists());
}

#[tokio::test]
async fn two_control_nodes_on_one_state_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::system();
    let path = dir.path().join("state");
    init(&env, &path, &InitConfig::default()).await.unwrap();
    let _first = hold(&env, &path, KeyAccess::default()).await.unwrap();
    let Err(error) = hold(&env, &path, KeyAccess::default()).await else {
        panic!("the second must be refused");
    };
    assert!(matches!(error, ControlError::InUse { .. }));
    let error = init(&env, &path, &InitConfig::default()).await.unwrap_err();
    assert!(matches!(error, ControlError::InUse { .. }), "{error}");
    assert_eq!(names(&path), ["ca", "lock", "store.redb"]);
}
