//! A script on every stage and in every family that it is for, and what is expected of each.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::language::{Family, Fault, Script, parse};
use crate::runner::{Failure, Notes, Settings, play};
use crate::stage::{Firmware, Linux, Stage, Unavailable, in_namespace};

/// The interface's MTU, in bytes.
const MTU: u32 = 1500;

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The script is none.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// A file cannot be read, or a card does not boot.
    #[error("{0}: {1}")]
    Io(String, std::io::Error),
    /// There is no Linux stage.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// The two stages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum On {
    /// The card, in virtual time.
    Firmware,
    /// The kernel, in a namespace, in real time.
    Linux,
}

impl On {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Firmware, Self::Linux];

    /// As in `# differs:`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Firmware => "firmware",
            Self::Linux => "linux",
        }
    }
}

/// Reads a script.
///
/// # Errors
/// It cannot be read, or is none.
pub fn load(path: &Path) -> Result<Script, Trouble> {
    let text = std::fs::read_to_string(path).map_err(|e| Trouble::Io(path.display().to_string(), e))?;
    Ok(parse(&path.display().to_string(), &text)?)
}

/// All scripts of a directory, in the order of their names.
///
/// # Errors
/// It cannot be read.
pub fn scripts(directory: &Path) -> Result<Vec<PathBuf>, Trouble> {
    let io = |e| Trouble::Io(directory.display().to_string(), e);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|extension| extension == "pkt") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The families that a script is for.
pub fn families(script: &Script) -> Vec<Family> {
    let said =
        script.options.iter().find(|(name, _)| name == "ip_version").and_then(|(_, value)| match value.as_str() {
            "ipv4" => Some(Family::V4),
            "ipv6" => Some(Family::V6),
            _ => None,
        });
    match said.or(script.head.family) {
        Some(family) => vec![family],
        None => vec![Family::V4, Family::V6],
    }
}

/// Plays a script once, on a stage of its own.
///
/// # Errors
/// There is no such stage; the verdict is in the result.
pub fn run(
    script: &Script,
    on: On,
    settings: Settings,
    flags: &[String],
) -> Result<(Result<(), Failure>, Notes), Trouble> {
    match on {
        On::Firmware => {
            let flags: Vec<String> = script.head.flags.iter().chain(flags).cloned().collect();
            let stage = Firmware::new(&flags).map_err(|e| Trouble::Io(script.file.clone(), e))?;
            let stage: Arc<dyn Stage> = Arc::new(stage);
            Ok(play(script, &stage, settings))
        }
        On::Linux => Ok(in_namespace(|| {
            let stage: Arc<dyn Stage> = Arc::new(Linux::new(&script.head.sysctls, MTU)?);
            Ok(play(script, &stage, settings))
        })?),
    }
}
