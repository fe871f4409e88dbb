//! The two machines that a guest runs on, as processes: stock QEMU and User-Mode Linux.
//!
//! Each gets a console for the shell on its standard streams and writes its kernel's log to a file.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::accelerator::{self, Accelerator};
use crate::console::Console;
use crate::host::{self, tool};
use crate::net::{GUEST_MAC, GUEST_V4, PEER_V4, TAP};
use crate::{Kernel, Namespace};

/// Bytes of memory of a guest, in MiB: enough for the 64 MiB files of the demo twice over.
const MEMORY_MIB: u32 = 512;

/// What a guest runs on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Stock QEMU with Debian's cloud kernel.
    Qemu,
    /// User-Mode Linux: native speed, a single processor, one queue pair.
    UserMode,
}

impl Kind {
    /// The guest's kernel.
    ///
    /// # Errors
    /// If it was not fetched or installed.
    pub fn kernel(self) -> Result<Kernel> {
        match self {
            Self::Qemu => Kernel::debian_cloud(),
            Self::UserMode => Kernel::user_mode(),
        }
    }

    /// How long a guest may take from its start to its shell.
    pub fn boot_limit(self) -> Duration {
        Duration::from_secs(60)
    }
}

/// The network card that the machine gives its guest.
#[derive(Clone, Debug)]
pub enum Netdev {
    /// None.
    None,
    /// A vhost-user backend at that socket.
    VhostUser(PathBuf),
    /// QEMU's own, on the lab's TAP.
    Tap,
    /// QEMU's own, with the TCP in QEMU (`-netdev user`): the guest's far end is the lab's loopback.
    User,
    /// QEMU's own, on `passt`'s socket.
    Passt(PathBuf),
}

/// What to boot.
#[derive(Clone, Debug)]
pub struct MachineOptions {
    /// On what.
    pub kind: Kind,
    /// Its root file system.
    pub initramfs: PathBuf,
    /// Its network card.
    pub netdev: Netdev,
    /// Of the card's interface, in bytes.
    pub mtu: u32,
    /// Of the routes there, in bytes, if they are to have one of their own.
    pub route_mtu: Option<u32>,
    /// Of QEMU's card; a User-Mode Linux always has one.
    pub queue_pairs: u16,
    /// Count instructions. QEMU only; the guest then has one processor, since only so the count is exact.
    pub count: Option<Count>,
}

/// A plugin of QEMU that counts instructions: the crate `guest-instructions`.
#[derive(Clone, Debug)]
pub struct Count {
    /// The built plugin.
    pub plugin: PathBuf,
    /// The file to which it appends a line for each mark.
    pub marks: PathBuf,
}

/// A running machine; killed when dropped.
pub struct Machine {
    process: Child,
    qmp: PathBuf,
}

impl Machine {
    /// Starts it; `logs` gets its logs, `sockets` its sockets.
    ///
    /// # Errors
    /// If something is missing; the line says what to install.
    pub fn start(
        namespace: &Namespace,
        options: &MachineOptions,
        logs: &Path,
        sockets: &Path,
    ) -> Result<(Self, Console)> {
        let qmp = sockets.join("qmp.sock");
        let mut command = match options.kind {
            Kind::Qemu => qemu(namespace, options, logs, &qmp, accelerator::get()?)?,
            Kind::UserMode => user_mode(namespace, options, sockets)?,
        };
        Self::spawn(&mut command, logs, qmp)
    }

    /// Starts a QEMU without a card on that accelerator: does it work at all?
    pub(crate) fn probe(
        accelerator: Accelerator,
        namespace: &Namespace,
        initramfs: PathBuf,
        directory: &Path,
    ) -> Result<(Self, Console)> {
        let options = MachineOptions {
            kind: Kind::Qemu,
            initramfs,
            netdev: Netdev::None,
            mtu: 1500,
            route_mtu: None,
            queue_pairs: 1,
            count: None,
        };
        let qmp = directory.join("qmp.sock");
        Self::spawn(&mut qemu(namespace, &options, directory, &qmp, accelerator)?, directory, qmp)
    }

    fn spawn(command: &mut Command, directory: &Path, qmp: PathBuf) -> Result<(Self, Console)> {
        let messages = File::options().create(true).append(true).open(directory.join("machine.log"))?;
        // A group of its own: User-Mode Linux runs each of its guest's address spaces as another process.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(messages).process_group(0);
        let mut process = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let (Some(stdin), Some(stdout)) = (process.stdin.take(), process.stdout.take()) else {
            bail!("the machine has no standard streams");
        };
        let log = File::options().create(true).append(true).open(directory.join("console.log"))?;
        Ok((Self { process, qmp }, Console::new(stdin, stdout, log)))
    }

    /// Whether the process still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    /// Resets the guest as its reset button would. QEMU only.
    ///
    /// # Errors
    /// If QEMU's control socket does not take the command.
    pub fn reset(&self) -> Result<()> {
        self.command(serde_json::json!({ "execute": "system_reset" }))
    }

    /// Takes the cable out of its network card, or puts it in again: the guest sees the carrier go and come. QEMU only.
    ///
    /// # Errors
    /// If QEMU's control socket does not take the command.
    pub fn set_link(&self, is_up: bool) -> Result<()> {
        self.command(serde_json::json!({ "execute": "set_link", "arguments": { "name": "n0", "up": is_up } }))
    }

    fn command(&self, wanted: serde_json::Value) -> Result<()> {
        let mut stream = UnixStream::connect(&self.qmp).context("QEMU's control socket")?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut answers = BufReader::new(stream.try_clone()?).lines();
        for command in [serde_json::json!({ "execute": "qmp_capabilities" }), wanted] {
            writeln!(stream, "{command}")?;
            loop {
                let answer = answers.next().context("QEMU closed its control socket")??;
                let answer: serde_json::Value = serde_json::from_str(&answer)?;
                ensure!(answer.get("error").is_none(), "QEMU refused {command}: {answer}");
                if answer.get("return").is_some() {
                    break;
                }
            }
        }
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(group) = Pid::from_raw(self.process.id().cast_signed()) {
            // Gone already is as good.
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.process.wait();
    }
}

fn qemu(
    namespace: &Namespace,
    options: &MachineOptions,
    directory: &Path,
    qmp: &Path,
    accelerator: Accelerator,
) -> Result<Command> {
    let kernel = Kernel::debian_cloud()?;
    let mut command = namespace.command(tool("qemu-system-x86_64", "qemu-system-x86")?);
    let memory = format!("memory-backend-memfd,id=mem,size={MEMORY_MIB}M,share=on");
    let processors = if options.count.is_some() { "1" } else { "2" };
    command.args(["-M", "q35", "-smp", processors, "-m", &format!("{MEMORY_MIB}M"), "-nodefaults", "-display", "none"]);
    command.args(["-object", &memory, "-numa", "node,memdev=mem"]);
    // QEMU 7.2 crashes under TCG when a vhost-user network starts with MSI-X.
    let vectors = match accelerator {
        Accelerator::Kvm => {
            command.args(["-accel", "kvm", "-cpu", "host"]);
            ""
        }
        Accelerator::Tcg => {
            command.args(["-accel", "tcg,thread=multi", "-cpu", "max"]);
            ",vectors=0"
        }
    };
    if let Some(Count { plugin, marks }) = &options.count {
        ensure!(
            accelerator == Accelerator::Tcg,
            "instructions are counted where they are translated: set TOE_ACCEL=tcg"
        );
        command.args(["-plugin", &format!("{},marks={}", plugin.display(), marks.display())]);
    }
    command.args(["-serial", &format!("file:{}", directory.join("kernel.log").display()), "-serial", "stdio"]);
    command.args(["-qmp", &format!("unix:{},server=on,wait=off", qmp.display())]);
    let multi_queue = if options.queue_pairs > 1 { ",mq=on" } else { "" };
    let device = format!(
        "virtio-net-pci,netdev=n0{vectors}{multi_queue},romfile=,mac={GUEST_MAC},host_mtu=65535,\
         rx_queue_size=1024,tx_queue_size={}",
        // QEMU's own card takes no more.
        if matches!(options.netdev, Netdev::VhostUser(_)) { 1024 } else { 256 },
    );
    match &options.netdev {
        Netdev::None => {}
        Netdev::VhostUser(socket) => {
            command.args(["-chardev", &format!("socket,id=c0,path={},reconnect=1", socket.display())]);
            command.args(["-netdev", &format!("vhost-user,id=n0,chardev=c0,queues={}", options.queue_pairs)]);
            command.args(["-device", &device]);
        }
        Netdev::Tap => {
            command.args(["-netdev", &format!("tap,id=n0,ifname={TAP},script=no,downscript=no,vhost=off")]);
            command.args(["-device", &device]);
        }
        Netdev::User => {
            command.args([
                "-netdev",
                &format!("user,id=n0,net={PEER_V4}/24,host={PEER_V4},dhcpstart={GUEST_V4},ipv6=off"),
            ]);
            command.args(["-device", &device]);
        }
        Netdev::Passt(socket) => {
            let at = format!("addr.type=unix,addr.path={}", socket.display());
            command.args(["-netdev", &format!("stream,id=n0,server=off,{at}"), "-device", &device]);
        }
    }
    let boot = format!("console=ttyS0 quiet panic=-1 TOE_TTY=ttyS1 {}", mtus(options).join(" "));
    command.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(&options.initramfs).args(["-append", &boot]);
    Ok(command)
}

/// What the guest's first process is told of them.
fn mtus(options: &MachineOptions) -> Vec<String> {
    let routes = options.route_mtu.map(|mtu| format!("TOE_ROUTE_MTU={mtu}"));
    std::iter::once(format!("TOE_MTU={}", options.mtu)).chain(routes).collect()
}

fn user_mode(namespace: &Namespace, options: &MachineOptions, directory: &Path) -> Result<Command> {
    let kernel = Kernel::user_mode()?;
    let mut command = namespace.command(&kernel.image);
    command.arg(format!("mem={MEMORY_MIB}M")).arg(format!("initrd={}", options.initramfs.display()));
    // Console 0 is the kernel's, and written with its messages to standard error; console 1 the shell's.
    command.args(["con=null", "con0=null,fd:2", "con1=fd:0,fd:1", "quiet", "panic=-1", "TOE_TTY=tty1"]);
    command.args(mtus(options));
    match &options.netdev {
        Netdev::None => {}
        Netdev::VhostUser(socket) => {
            command.arg(format!("virtio_uml.device={}:1", socket.display()));
        }
        Netdev::Tap | Netdev::User | Netdev::Passt(_) => {
            bail!("User-Mode Linux has no network card of its own: use the card")
        }
    }
    // Its memory is a file that it maps executable.
    command.env("TMPDIR", "/dev/shm").env("HOME", directory);
    if let Some(library) = wide_xstate_library()? {
        command.env("LD_PRELOAD", library);
    }
    Ok(command)
}

/// On a processor with AMX, User-Mode Linux 6.1 dies at init: see `guest/wide-xstate.c`, which is built and
/// preloaded there (or anywhere, with `TOE_UML_SHIM=1`).
fn wide_xstate_library() -> Result<Option<PathBuf>> {
    let has_amx = std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains("amx_tile"));
    if !has_amx && std::env::var_os("TOE_UML_SHIM").is_none() {
        return Ok(None);
    }
    let source = host::root().join("guest-tests/guest/wide-xstate.c");
    let directory = host::target().join("guest-images");
    std::fs::create_dir_all(&directory)?;
    let library = directory.join("wide-xstate.so");
    let arguments = ["-O2", "-shared", "-fPIC", "-Wall", "-Werror", "-o"].map(Path::new);
    host::run(tool("gcc", "gcc libc6-dev")?, arguments.into_iter().chain([&*library, &*source]))?;
    Ok(Some(library))
}
