//! Which frames a capture wants: tcpdump's filter expressions, compiled by tcpdump, run here.
//!
//! There is no language here. [`compile`] has tcpdump translate an expression into a program of the classic BPF machine
//! (McCanne and Jacobson, 1993; bpf(4)), which is what `tcpdump -ddd` is for; it needs neither a device nor a right.
//! Programs are as hostile as any input: [`Program::new`] lets only those through whose jumps lead forward into the program,
//! so that each instruction runs once at most, and a look beyond the frame's end refuses the frame, as in every BPF.

use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

/// The most instructions of a program, as in Linux.
pub const INSTRUCTIONS_MAX: usize = 4096;

/// Words of the machine's memory.
const MEMORY_WORDS: usize = 16;

/// One instruction: code, how far to jump if true and if false, and a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Instruction(pub u16, pub u8, pub u8, pub u32);

/// A program that cannot be run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProgramError {
    /// None or too many instructions.
    #[error("a program has 1 to {INSTRUCTIONS_MAX} instructions, this one {0}")]
    Length(usize),
    /// The instruction at that place.
    #[error("instruction {0} is none, or leads out of the program")]
    Instruction(usize),
    /// It does not end with a return.
    #[error("the last instruction does not end the program")]
    NoEnd,
}

/// Has tcpdump compile an expression for Ethernet frames.
///
/// # Errors
/// One line: tcpdump is not there, or what it says of the expression.
pub fn compile(expression: &str) -> Result<Vec<Instruction>, String> {
    let mut command = Command::new("tcpdump");
    command.args(["-ddd", "-y", "EN10MB", "--"]).arg(expression).stdin(Stdio::null());
    let output = command.output().map_err(|error| {
        format!(
            "filters are compiled by tcpdump(8), which cannot be run ({error}): install it, or leave the filter out"
        )
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let line = said.lines().last().unwrap_or("no reason told");
        return Err(format!("filter `{expression}`: {}", line.strip_prefix("tcpdump: ").unwrap_or(line)));
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    parse(&text).ok_or_else(|| format!("filter `{expression}`: tcpdump printed no program"))
}

/// The number of instructions, then one in each line.
fn parse(text: &str) -> Option<Vec<Instruction>> {
    let mut lines = text.lines();
    let count: usize = lines.next()?.trim().parse().ok()?;
    let program: Vec<_> = lines
        .map(|line| {
            let mut words = line.split_whitespace();
            let instruction = Instruction(
                words.next()?.parse().ok()?,
                words.next()?.parse().ok()?,
                words.next()?.parse().ok()?,
                words.next()?.parse().ok()?,
            );
            words.next().is_none().then_some(instruction)
        })
        .collect::<Option<_>>()?;
    (program.len() == count).then_some(program)
}

/// Where an operand comes from.
#[derive(Clone, Copy, Debug)]
enum Source {
    K,
    X,
}

#[derive(Clone, Copy, Debug)]
enum Load {
    /// So many bytes at K.
    Absolute(u8),
    /// So many bytes at X + K.
    Indirect(u8),
    Immediate,
    Memory,
    Length,
    /// Four times the low half of the byte at K: an IPv4 header's length.
    HeaderLength,
}

#[derive(Clone, Copy, Debug)]
enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    And,
    Or,
    Xor,
    ShiftLeft,
    ShiftRight,
    Negate,
}

#[derive(Clone, Copy, Debug)]
enum Test {
    Equal,
    Greater,
    GreaterOrEqual,
    Set,
}

#[derive(Clone, Copy, Debug)]
enum Operation {
    LoadA(Load, u32),
    LoadX(Load, u32),
    StoreA(usize),
    StoreX(usize),
    Arithmetic(Arithmetic, Source, u32),
    Jump(usize),
    JumpIf(Test, Source, u32, usize, usize),
    /// With that many bytes.
    Return(u32),
    ReturnA,
    AToX,
    XToA,
}

/// A program that ends.
#[derive(Clone, Debug)]
pub struct Program(Vec<Operation>);

impl Program {
    /// Checks every instruction.
    ///
    /// # Errors
    /// See [`ProgramError`].
    pub fn new(instructions: Vec<Instruction>) -> Result<Self, ProgramError> {
        let count = instructions.len();
        if count == 0 || count > INSTRUCTIONS_MAX {
            return Err(ProgramError::Length(count));
        }
        let read = |(at, instruction): (usize, &Instruction)| {
            decode(*instruction, count - at - 1).ok_or(ProgramError::Instruction(at))
        };
        let operations: Vec<_> = instructions.iter().enumerate().map(read).collect::<Result<_, _>>()?;
        match operations.last() {
            Some(Operation::Return(_) | Operation::ReturnA) => Ok(Self(operations)),
            _ => Err(ProgramError::NoEnd),
        }
    }

    /// Whether it wants that frame.
    pub fn wants(&self, frame: &[u8]) -> bool {
        // A look beyond the end refuses.
        self.run(frame).unwrap_or(0) > 0
    }

    fn run(&self, frame: &[u8]) -> Option<u32> {
        let (mut a, mut x, mut memory) = (0u32, 0u32, [0u32; MEMORY_WORDS]);
        let mut at = 0;
        loop {
            let operation = self.0.get(at)?;
            at += 1;
            match *operation {
                Operation::LoadA(load, k) => a = value(load, k, x, &memory, frame)?,
                Operation::LoadX(load, k) => x = value(load, k, x, &memory, frame)?,
                Operation::StoreA(word) => *memory.get_mut(word)? = a,
                Operation::StoreX(word) => *memory.get_mut(word)? = x,
                Operation::Arithmetic(kind, source, k) => a = compute(kind, a, operand(source, k, x))?,
                Operation::Jump(by) => at += by,
                Operation::JumpIf(test, source, k, if_true, if_false) => {
                    let b = operand(source, k, x);
                    let is_true = match test {
                        Test::Equal => a == b,
                        Test::Greater => a > b,
                        Test::GreaterOrEqual => a >= b,
                        Test::Set => a & b != 0,
                    };
                    at += if is_true { if_true } else { if_false };
                }
                Operation::Return(bytes) => return Some(bytes),
                Operation::ReturnA => return Some(a),
                Operation::AToX => x = a,
                Operation::XToA => a = x,
            }
        }
    }
}

fn operand(source: Source, k: u32, x: u32) -> u32 {
    match source {
        Source::K => k,
        Source::X => x,
    }
}

fn value(load: Load, k: u32, x: u32, memory: &[u32; MEMORY_WORDS], frame: &[u8]) -> Option<u32> {
    let bytes = |at: u32, count: u8| {
        let at = usize::try_from(at).ok()?;
        let bytes = frame.get(at..at.checked_add(count.into())?)?;
        Some(bytes.iter().fold(0, |value, byte| value << 8 | u32::from(*byte)))
    };
    match load {
        Load::Absolute(count) => bytes(k, count),
        Load::Indirect(count) => bytes(x.wrapping_add(k), count),
        Load::Immediate => Some(k),
        Load::Memory => memory.get(k as usize).copied(),
        Load::Length => u32::try_from(frame.len()).ok(),
        Load::HeaderLength => Some((bytes(k, 1)? & 0xf) * 4),
    }
}

/// Division by a zero that only shows when it runs refuses the frame.
fn compute(kind: Arithmetic, a: u32, b: u32) -> Option<u32> {
    Some(match kind {
        Arithmetic::Add => a.wrapping_add(b),
        Arithmetic::Subtract => a.wrapping_sub(b),
        Arithmetic::Multiply => a.wrapping_mul(b),
        Arithmetic::Divide => a.checked_div(b)?,
        Arithmetic::Modulo => a.checked_rem(b)?,
        Arithmetic::And => a & b,
        Arithmetic::Or => a | b,
        Arithmetic::Xor => a ^ b,
        Arithmetic::ShiftLeft => a.checked_shl(b).unwrap_or(0),
        Arithmetic::ShiftRight => a.checked_shr(b).unwrap_or(0),
        Arithmetic::Negate => a.wrapping_neg(),
    })
}

/// Reads an instruction behind which `behind` others stand. The codes are those of Linux's `linux/filter.h`.
fn decode(Instruction(code, if_true, if_false, k): Instruction, behind: usize) -> Option<Operation> {
    let source = if code & 0x08 == 0 { Source::K } else { Source::X };
    let word = || usize::try_from(k).ok().filter(|word| *word < MEMORY_WORDS);
    let target = |by: usize| (by < behind).then_some(by);
    Some(match code {
        0x20 => Operation::LoadA(Load::Absolute(4), k),
        0x28 => Operation::LoadA(Load::Absolute(2), k),
        0x30 => Operation::LoadA(Load::Absolute(1), k),
        0x40 => Operation::LoadA(Load::Indirect(4), k),
        0x48 => Operation::LoadA(Load::Indirect(2), k),
        0x50 => Operation::LoadA(Load::Indirect(1), k),
        0x00 => Operation::LoadA(Load::Immediate, k),
        0x60 => Operation::LoadA(Load::Memory, word()? as u32),
        0x80 => Operation::LoadA(Load::Length, 0),
        0x01 => Operation::LoadX(Load::Immediate, k),
        0x61 => Operation::LoadX(Load::Memory, word()? as u32),
        0x81 => Operation::LoadX(Load::Length, 0),
        0xb1 => Operation::LoadX(Load::HeaderLength, k),
        0x02 => Operation::StoreA(word()?),
        0x03 => Operation::StoreX(word()?),
        0x04 | 0x0c => Operation::Arithmetic(Arithmetic::Add, source, k),
        0x14 | 0x1c => Operation::Arithmetic(Arithmetic::Subtract, source, k),
        0x24 | 0x2c => Operation::Arithmetic(Arithmetic::Multiply, source, k),
        0x34 | 0x94 if k == 0 => return None,
        0x34 | 0x3c => Operation::Arithmetic(Arithmetic::Divide, source, k),
        0x94 | 0x9c => Operation::Arithmetic(Arithmetic::Modulo, source, k),
        0x44 | 0x4c => Operation::Arithmetic(Arithmetic::Or, source, k),
        0x54 | 0x5c => Operation::Arithmetic(Arithmetic::And, source, k),
        0xa4 | 0xac => Operation::Arithmetic(Arithmetic::Xor, source, k),
        0x64 | 0x74 if k >= 32 => return None,
        0x64 | 0x6c => Operation::Arithmetic(Arithmetic::ShiftLeft, source, k),
        0x74 | 0x7c => Operation::Arithmetic(Arithmetic::ShiftRight, source, k),
        0x84 => Operation::Arithmetic(Arithmetic::Negate, Source::K, 0),
        0x05 => Operation::Jump(target(usize::try_from(k).ok()?)?),
        0x15 | 0x1d | 0x25 | 0x2d | 0x35 | 0x3d | 0x45 | 0x4d => {
            let test = match code & 0xf0 {
                0x10 => Test::Equal,
                0x20 => Test::Greater,
                0x30 => Test::GreaterOrEqual,
                _ => Test::Set,
            };
            Operation::JumpIf(test, source, k, target(if_true.into())?, target(if_false.into())?)
        }
        0x06 => Operation::Return(k),
        0x16 => Operation::ReturnA,
        0x07 => Operation::AToX,
        0x87 => Operation::XToA,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixDatagram;

    use proptest::prelude::*;

    /// A TCP segment over IPv4 between those ports.
    fn segment(source: u16, destination: u16) -> Vec<u8> {
        let mut frame = vec![0; 54];
        frame[12..14].copy_from_slice(&0x0800u16.to_be_bytes());
        frame[14] = 0x45;
        frame[23] = 6;
        frame[26..34].copy_from_slice(&[192, 0, 2, 1, 192, 0, 2, 2]);
        frame[34..36].copy_from_slice(&source.to_be_bytes());
        frame[36..38].copy_from_slice(&destination.to_be_bytes());
        frame
    }

    #[test]
    fn an_expression_selects() {
        let program = |expression: &str| Program::new(compile(expression).unwrap()).unwrap();
        let http = program("tcp dst port 80 and host 192.0.2.1");
        assert!(http.wants(&segment(1000, 80)));
        assert!(!http.wants(&segment(80, 1000)));
        assert!(!http.wants(&segment(1000, 80)[..30]), "a look beyond the end refuses");
        assert!(program("ether proto 0x88b5").wants(&{
            let mut frame = segment(0, 0);
            frame[12..14].copy_from_slice(&[0x88, 0xb5]);
            frame
        }));
        assert!(program("less 60").wants(&segment(0, 0)));
        assert!(!program("greater 60").wants(&segment(0, 0)));
    }

    #[test]
    fn an_expression_that_makes_no_sense_is_told_in_one_line() {
        for expression in ["tcp prt 80", "port", "", "host", "-w /tmp/x"] {
            match compile(expression) {
                Err(said) => assert!(said.starts_with("filter `") && said.lines().count() == 1, "{said}"),
                // tcpdump takes nothing for everything.
                Ok(program) => assert!(expression.is_empty() && program.len() == 1, "{expression}: {program:?}"),
            }
        }
    }

    #[test]
    fn programs_that_could_run_astray_are_refused() {
        let end = Instruction(0x06, 0, 0, 1);
        for (program, expected) in [
            (vec![], ProgramError::Length(0)),
            (vec![end; INSTRUCTIONS_MAX + 1], ProgramError::Length(INSTRUCTIONS_MAX + 1)),
            (vec![Instruction(0x05, 0, 0, 1), end], ProgramError::Instruction(0)),
            (vec![Instruction(0x05, 0, 0, u32::MAX), end], ProgramError::Instruction(0)),
            (vec![Instruction(0x15, 0, 1, 0), end], ProgramError::Instruction(0)),
            (vec![Instruction(0x60, 0, 0, 16), end], ProgramError::Instruction(0)),
            (vec![Instruction(0x34, 0, 0, 0), end], ProgramError::Instruction(0)),
            (vec![Instruction(0xffff, 0, 0, 0), end], ProgramError::Instruction(0)),
            (vec![end, Instruction(0x07, 0, 0, 0)], ProgramError::NoEnd),
        ] {
            assert_eq!(Program::new(program).unwrap_err(), expected);
        }
    }

    /// Whether the kernel's machine lets a datagram through; `None` if it does not take the program.
    fn kernel_wants(program: &[Instruction], frame: &[u8]) -> Option<bool> {
        let (sender, receiver) = UnixDatagram::pair().unwrap();
        let filters: Vec<_> =
            program.iter().map(|i| libc::sock_filter { code: i.0, jt: i.1, jf: i.2, k: i.3 }).collect();
        let program = libc::sock_fprog { len: filters.len() as u16, filter: filters.as_ptr().cast_mut() };
        // SAFETY: the option's value is a `sock_fprog` of so many bytes, whose filters live until the call is over; the
        // kernel only reads them.
        let result = unsafe {
            libc::setsockopt(
                receiver.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const program).cast(),
                size_of::<libc::sock_fprog>() as u32,
            )
        };
        if result != 0 {
            return None;
        }
        receiver.set_nonblocking(true).unwrap();
        // A datagram that is filtered out is gone, and its sender is told that it went.
        let _ = sender.send(frame);
        Some(receiver.recv(&mut [0; 1]).is_ok())
    }

    #[test]
    fn expressions_select_what_they_select_in_the_kernel() {
        let frames = [
            segment(80, 22),
            segment(22, 8080),
            segment(443, 65535)[..40].to_vec(),
            [&segment(1, 2)[..], &[7; 900]].concat(),
            vec![0xff; 64],
            vec![1],
        ];
        for expression in [
            "tcp",
            "udp",
            "arp",
            "ip6",
            "tcp port 22",
            "portrange 1-100",
            "host 192.0.2.2 and not port 80",
            "greater 500",
            "tcp[tcpflags] & tcp-syn != 0",
            "ip[2:2] > 100",
            "ether broadcast",
            "ip6 and tcp port 80",
            "vlan 5 and tcp",
            "(ip[8] + 3) * 2 / 5 % 7 = 1 or ip[0] & 0xf << 2 = 20",
        ] {
            let instructions = compile(expression).unwrap();
            let program = Program::new(instructions.clone()).unwrap();
            for frame in &frames {
                // Expressions about VLANs ask the kernel for what is not in a frame; tcpdump compiles them for files.
                assert_eq!(Some(program.wants(frame)), kernel_wants(&instructions, frame), "{expression} {frame:x?}");
            }
        }
    }

    fn instruction() -> impl Strategy<Value = Instruction> {
        const CODES: &[u16] = &[
            0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0x00, 0x60, 0x80, 0x01, 0x61, 0x81, 0xb1, 0x02, 0x03, 0x04, 0x0c, 0x14,
            0x1c, 0x24, 0x2c, 0x34, 0x3c, 0x94, 0x9c, 0x44, 0x4c, 0x54, 0x5c, 0xa4, 0xac, 0x64, 0x74, 0x84, 0x05, 0x15,
            0x1d, 0x25, 0x2d, 0x35, 0x3d, 0x45, 0x4d, 0x06, 0x16, 0x07, 0x87,
        ];
        let k = prop_oneof![0..24u32, any::<u32>().prop_filter("the kernel's own data", |k| *k < 1 << 31)];
        (prop::sample::select(CODES), 0..4u8, 0..4u8, k).prop_map(|(code, jt, jf, k)| Instruction(code, jt, jf, k))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn any_program_that_the_kernel_takes_does_the_same_here(
            mut program in prop::collection::vec(instruction(), 0..12),
            frame in prop::collection::vec(any::<u8>(), 1..40),
        ) {
            // The kernel wants to see a word of memory written before it is read.
            program.splice(0..0, (0..MEMORY_WORDS as u32).map(|word| Instruction(0x02, 0, 0, word)));
            program.push(Instruction(0x16, 0, 0, 0));
            if let Some(kernel) = kernel_wants(&program, &frame) {
                let ours = Program::new(program.clone());
                prop_assert!(ours.is_ok(), "{program:?}: {ours:?}");
                prop_assert_eq!(ours.unwrap().wants(&frame), kernel);
            }
        }
    }
}
