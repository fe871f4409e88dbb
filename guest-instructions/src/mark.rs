//! What a guest says by an instruction that does nothing, and how the plugin is told where to write.

/// A mark: a nop with a displacement of its own, which neither compilers nor assemblers make.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mark {
    /// What is measured begins: `nopl 0x544f4531(%rax,%rax,1)`.
    Begin,
    /// It ends: `nopl 0x544f4530(%rax,%rax,1)`.
    End,
}

impl Mark {
    /// The mark that these bytes of an instruction are.
    pub fn of(instruction: &[u8]) -> Option<Self> {
        let displacement = instruction.strip_prefix(&[0x0f, 0x1f, 0x84, 0x00])?;
        match displacement {
            b"1EOT" => Some(Self::Begin),
            b"0EOT" => Some(Self::End),
            _ => None,
        }
    }

    /// As the file has it.
    pub fn number(self) -> u8 {
        match self {
            Self::Begin => 1,
            Self::End => 0,
        }
    }
}

/// Whether an instruction is one of strings with a repeat prefix: `rep movs`, `stos`, `lods`, `cmps`, `scas`, `ins`, `outs`. QEMU goes back
/// to it for every turn, by a block that begins with it.
pub fn is_repeated(instruction: &[u8]) -> bool {
    let code = instruction.iter().position(|byte| !matches!(byte, 0xf2 | 0xf3 | 0x40..=0x4f | 0x66 | 0x67));
    let is_string = code.is_some_and(|at| matches!(instruction[at], 0x6c..=0x6f | 0xa4..=0xa7 | 0xaa..=0xaf));
    is_string && matches!(instruction, [0xf2 | 0xf3, ..] | [0x66 | 0x67, 0xf2 | 0xf3, ..])
}

/// The file's path in the plugin's arguments, of which `marks=PATH` is the only one.
pub fn path<'a>(arguments: &[&'a str]) -> Option<&'a str> {
    match arguments {
        [argument] => argument.strip_prefix("marks=").filter(|path| !path.is_empty()),
        _ => None,
    }
}

/// Whether an address is the kernel's.
pub fn is_kernel(address: u64) -> bool {
    address >> 63 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_known_by_all_their_bytes() {
        // What `toe-calls` has in its `asm!`.
        let begin = [0x0f, 0x1f, 0x84, 0x00, 0x31, 0x45, 0x4f, 0x54];
        let end = [0x0f, 0x1f, 0x84, 0x00, 0x30, 0x45, 0x4f, 0x54];
        assert_eq!(Mark::of(&begin), Some(Mark::Begin));
        assert_eq!(Mark::of(&end), Some(Mark::End));
        assert_eq!([Mark::Begin, Mark::End].map(Mark::number), [1, 0], "as the file's readers know them");
        for n in 0..begin.len() {
            assert_eq!(Mark::of(&begin[..n]), None, "{n} bytes");
            let mut other = begin;
            other[n] ^= 0x80;
            assert_eq!(Mark::of(&other), None, "byte {n}");
        }
    }

    #[test]
    fn repeated_instructions_are_those_of_strings() {
        for yes in [&[0xf3, 0xa4][..], &[0xf3, 0x48, 0xa5], &[0xf3, 0x48, 0xab], &[0xf2, 0xae], &[0x66, 0xf3, 0xa5]] {
            assert!(is_repeated(yes), "{yes:x?}");
        }
        // movsb once, pause, endbr64, ret, addsd, nothing.
        for no in [&[0xa4][..], &[0xf3, 0x90], &[0xf3, 0x0f, 0x1e, 0xfa], &[0xf3, 0xc3], &[0xf2, 0x0f, 0x58, 0xc1], &[]]
        {
            assert!(!is_repeated(no), "{no:x?}");
        }
    }

    #[test]
    fn the_path_is_the_only_argument() {
        assert_eq!(path(&["marks=/tmp/x"]), Some("/tmp/x"));
        for bad in [&[][..], &["marks="], &["/tmp/x"], &["marks=a", "marks=b"]] {
            assert_eq!(path(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_upper_half_of_addresses_is_the_kernels() {
        assert!(is_kernel(0xffff_ffff_8100_0000));
        assert!(!is_kernel(0x7fff_ffff_f000));
    }
}
