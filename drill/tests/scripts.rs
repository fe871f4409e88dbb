//! Every script of ours, on the firmware and on Linux, in every family that it is for: it passes, unless its head says
//! that this stack differs, and then it does not.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use toe_drill::language::{Family, Script};
use toe_drill::runner::Settings;
use toe_drill::suite::{self, On, Trouble};

/// A kernel in real time on a busy machine may be late; order and content are compared as strictly as ever.
const LINUX_TOLERANCE_US: u64 = 150_000;
/// As often is a script played on Linux before it is doubtful.
const LINUX_ATTEMPTS: usize = 4;
/// As often once more, with nothing else beside it and as late as may be, before it counts as failed.
const LINUX_ATTEMPTS_ALONE: usize = 8;
const LINUX_TOLERANCE_ALONE_US: u64 = 600_000;
/// Scripts on Linux at a time, each in a namespace of its own; they mostly wait.
const LINUX_WORKERS: usize = 8;
const SCRIPTS_MIN: usize = 40;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts")
}

fn all() -> Vec<Script> {
    let paths = suite::scripts(&directory()).unwrap();
    assert!(paths.len() >= SCRIPTS_MIN);
    paths.iter().map(|path| suite::load(path).unwrap_or_else(|trouble| panic!("{trouble}"))).collect()
}

/// What is wrong with a script's verdict on a stage, if anything.
fn verdict(
    script: &Script,
    on: On,
    family: Family,
    attempts: usize,
    tolerance_us: Option<u64>,
) -> Result<Option<String>, Trouble> {
    let settings = Settings { tolerance_us, ..Settings::new(family) };
    let mut last = String::new();
    for _ in 0..attempts {
        match (suite::run(script, on, settings, &[])?.0, script.head.differs_on(on.name())) {
            (Ok(()), None) => return Ok(None),
            (Ok(()), Some(_)) => {
                return Ok(Some(format!("{} passes on {}, and is listed as different", script.file, on.name())));
            }
            (Err(failure), _) => last = format!("{} with {failure}", family.name()),
        }
    }
    Ok(script.head.differs_on(on.name()).is_none().then_some(last))
}

#[test]
fn the_firmware_does_what_the_scripts_say() {
    let mut wrong = Vec::new();
    for script in all() {
        for family in suite::families(&script) {
            wrong.extend(verdict(&script, On::Firmware, family, 1, None).unwrap_or_else(|trouble| panic!("{trouble}")));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn linux_does_what_the_scripts_say() {
    let scripts = all();
    let runs: Vec<(&Script, Family)> = scripts
        .iter()
        .flat_map(|script| suite::families(script).into_iter().map(move |family| (script, family)))
        .collect();
    let next = AtomicUsize::new(0);
    let doubtful = Mutex::new(Vec::new());
    let unavailable = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..LINUX_WORKERS {
            scope.spawn(|| {
                while let Some((script, family)) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match verdict(script, On::Linux, *family, LINUX_ATTEMPTS, Some(LINUX_TOLERANCE_US)) {
                        Ok(None) => {}
                        Ok(Some(_)) => doubtful.lock().unwrap().push((*script, *family)),
                        Err(Trouble::Unavailable(reason)) => {
                            *unavailable.lock().unwrap() = Some(reason);
                            return;
                        }
                        Err(trouble) => panic!("{trouble}"),
                    }
                }
            });
        }
    });
    if let Some(reason) = unavailable.into_inner().unwrap() {
        println!("skipped: {reason}");
        return;
    }
    let mut wrong = Vec::new();
    for (script, family) in doubtful.into_inner().unwrap() {
        let alone = verdict(script, On::Linux, family, LINUX_ATTEMPTS_ALONE, Some(LINUX_TOLERANCE_ALONE_US));
        wrong.extend(alone.unwrap_or_else(|trouble| panic!("{trouble}")));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_page_of_differences_is_up_to_date() {
    let page = toe_drill::differences::page(&directory()).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/differences.md");
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(found == page, "docs/differences.md is not what `toe-drill differences` prints");
}
