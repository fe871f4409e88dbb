//! What the comment at a script's head says: what it shows, and how its runs are set up.
//!
//! Lines of the form `# key: value` are for the runner: `differs` (which stack is expected not to pass, why, and the RFC
//! that decides), `flags` (of the card: packetdrill/README.md), `sysctl` (of the kernel's namespace), `family` (`ipv4`, `ipv6`; both without it), `mtu`. The
//! first other line is the title.

/// A stack that is known not to pass.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// The stage's name.
    pub stage: String,
    /// Why, and which RFC decides.
    pub reason: String,
}

/// The head of a script.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Head {
    /// What it shows, as prose.
    pub prose: Vec<String>,
    /// Who does not pass.
    pub differs: Vec<Difference>,
    /// Flags of the card.
    pub flags: Vec<String>,
    /// Settings of the kernel, `name=value`.
    pub sysctls: Vec<String>,
    /// The only family in which it makes sense.
    pub family: Option<super::Family>,
}

impl Head {
    /// Reads the comment lines before the first event.
    ///
    /// # Errors
    /// The number of a line and what was expected there.
    pub fn read(text: &str) -> Result<Self, (usize, String)> {
        let mut head = Self::default();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            let Some(said) = line.strip_prefix('#').or_else(|| line.strip_prefix("//")) else {
                if line.is_empty() || line.starts_with("--") {
                    continue;
                }
                break;
            };
            let said = said.trim();
            let wrong = |what: &str| (number + 1, what.to_owned());
            match said.split_once(':').map(|(key, value)| (key, value.trim())) {
                Some(("differs", value)) => {
                    let (stage, reason) = value.split_once(':').ok_or_else(|| wrong("`# differs: stage: reason`"))?;
                    if !["firmware", "linux"].contains(&stage.trim()) || reason.trim().is_empty() {
                        return Err(wrong("`# differs: firmware: reason` or `# differs: linux: reason`"));
                    }
                    let reason = reason.trim().to_owned();
                    head.differs.push(Difference { stage: stage.trim().to_owned(), reason });
                }
                Some(("flags", value)) => head.flags.push(value.to_owned()),
                Some(("sysctl", value)) => {
                    if !value.contains('=') {
                        return Err(wrong("`# sysctl: name=value`"));
                    }
                    head.sysctls.push(value.to_owned());
                }
                Some(("family", "ipv4")) => head.family = Some(super::Family::V4),
                Some(("family", "ipv6")) => head.family = Some(super::Family::V6),
                Some(("family", _)) => return Err(wrong("`# family: ipv4` or `# family: ipv6`")),
                _ if said.is_empty() => {}
                _ => head.prose.push(said.to_owned()),
            }
        }
        Ok(head)
    }

    /// Why `stage` is expected not to pass.
    pub fn differs_on(&self, stage: &str) -> Option<&str> {
        self.differs.iter().find(|d| d.stage == stage).map(|d| d.reason.as_str())
    }
}
